"""Exchanges, queues and bindings, declared step by step on a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pika import exceptions
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.registration import Registration
from domain_events.transport.script import Step, Steps
from domain_events.transport.topology import EXCHANGE_TYPE, Queue, dead_letter_queue, main_queue


def open_channel(
    connection: AnyConnection,
    closed: Callable[[Channel, Exception], None],
    opened: Callable[[Channel], None] = lambda _channel: None,
) -> Step:
    """Answers with a new channel; `closed` is told when it is gone, with the reason."""

    def request(done: Callable[[Channel], None]) -> None:
        def on_open(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            opened(channel)
            done(channel)

        connection.channel(on_open_callback=on_open)

    return request


def declare_exchange(open_another: Callable[[], Step], channel: Channel, exchange: str) -> Steps[Channel]:
    """Declares the exchange and returns the channel to go on with.

    A login that may not configure the exchange (403) can use one that is there: then a new channel is needed.
    """
    try:
        yield lambda done: channel.exchange_declare(exchange, EXCHANGE_TYPE, durable=True, callback=done)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 403:
            raise
        channel = yield open_another()
        yield lambda done: channel.exchange_declare(exchange, passive=True, callback=done)
    return channel


def declare_queue(channel: Channel, queue: Queue) -> Steps[None]:
    yield lambda done: channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), callback=done)


def declare_receiver(open_another: Callable[[], Step], channel: Channel, registration: Registration) -> Steps[Channel]:
    """Everything that a receiver needs before it consumes; retry queues come with the first retry."""
    channel = yield from declare_exchange(open_another, channel, registration.exchange)
    yield from declare_queue(channel, main_queue(registration))
    # After the main queue, and before its bindings: a quorum queue is safe from a crash of the broker at once when
    # another one was declared after it (docs/decisions/0003).
    if registration.dead_letter:
        yield from declare_queue(channel, dead_letter_queue(registration.name))
    yield from bind_queue(channel, registration.name, registration.exchange, registration.binding_keys)
    return channel


def bind_queue(channel: Channel, queue: str, exchange: str, keys: Iterable[str]) -> Steps[None]:
    for key in keys:
        yield lambda done, key=key: channel.queue_bind(queue, exchange, routing_key=key, callback=done)  # type: ignore[misc]


def unbind_queue(channel: Channel, queue: str, exchange: str, keys: Iterable[str]) -> Steps[None]:
    for key in keys:
        yield lambda done, key=key: channel.queue_unbind(queue, exchange, routing_key=key, callback=done)  # type: ignore[misc]
