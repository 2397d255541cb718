"""Exchanges, queues and bindings, declared step by step on a channel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue

from pika import exceptions
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.errors import ConnectionFailed
from domain_events.registration import Registration
from domain_events.settings import Broker
from domain_events.transport.connection import CLOSE_TIMEOUT, Connection
from domain_events.transport.io_thread import IOThread
from domain_events.transport.problems import channel_problem
from domain_events.transport.script import Script, Step, Steps
from domain_events.transport.topology import EXCHANGE_TYPE, Queue, dead_letter_queue, main_queue


def open_channel(connection: AnyConnection, closed: Callable[[Channel, Exception], None]) -> Step:
    """Answers with a new channel; `closed` is told when it is gone, with the reason."""

    def request(done: Callable[[Channel], None]) -> None:
        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            done(channel)

        connection.channel(on_open_callback=opened)

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
    for key in registration.binding_keys:
        yield lambda done, key=key: channel.queue_bind(  # type: ignore[misc]
            registration.name, registration.exchange, routing_key=key, callback=done
        )
    return channel


def declare_topology(registrations: Sequence[Registration], brokers: Sequence[Broker], timeout: float) -> None:
    """Declare all of them and wait until that is done. For threads that have no I/O loop.

    Raises TopologyMismatch, BrokerRefused, or ConnectionFailed after `timeout` seconds.
    """
    answer: SimpleQueue[BaseException | None] = SimpleQueue()
    io = IOThread("de-declare", answer.put)
    script: list[Script[None]] = []

    def closed(_channel: Channel, error: Exception) -> None:
        script[0].throw(error)

    def steps(amqp: AnyConnection) -> Steps[None]:
        for registration in registrations:
            another = partial(open_channel, amqp, closed)
            channel: Channel = yield another()
            yield from declare_receiver(another, channel, registration)

    def opened(amqp: AnyConnection) -> None:
        script.append(Script(steps(amqp), done=answer.put, failed=lambda error: answer.put(channel_problem(error))))
        script[0].start()

    connection = Connection(io, brokers, name="declare", opened=opened, lost=answer.put)
    io.call(connection.open)
    io.start()
    try:
        error = answer.get(timeout=timeout)
    except Empty:
        error = ConnectionFailed(f"the broker did not answer within {timeout:g} s")
    left = threading.Event()
    io.call(lambda: connection.close(left.set))
    left.wait(CLOSE_TIMEOUT + 1.0)
    io.stop()
    if error is not None:
        raise error
