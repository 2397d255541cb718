"""One receiver's place on the broker: its channel, and what it was given and has not settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pika import BasicProperties
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.registration import LARGEST_PREFETCH, Registration
from domain_events.transport.declaring import declare_receiver, open_channel
from domain_events.transport.handover import Lane
from domain_events.transport.publication import Publication
from domain_events.transport.script import Script, Steps
from domain_events.transport.unsettled import Unsettled

DEFAULT_PREFETCH = 16
"""Few enough to be shared fairly between processes, enough to keep one busy: see docs/decisions/0005."""


def default_prefetch(concurrency: int) -> int:
    """While as many events are in hand as may be, as many wait for them."""
    return max(DEFAULT_PREFETCH, min(2 * concurrency, LARGEST_PREFETCH))


class Delivery:
    """An event handed to us. Its tag is worth something on its `channel` only."""

    __slots__ = ("begun", "body", "channel", "properties", "redelivered", "routing_key", "subscription", "tag")

    def __init__(
        self,
        subscription: Subscription,
        channel: Channel,
        tag: int,
        routing_key: str,
        redelivered: bool,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        self.subscription = subscription
        self.channel = channel
        self.tag = tag
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.properties = properties
        self.body = body
        self.begun = 0.0
        """When it was taken in hand (time.monotonic()); 0.0: not yet."""

    @property
    def registration(self) -> Registration:
        return self.subscription.registration

    @property
    def is_stale(self) -> bool:
        """The channel is gone, and the broker gives the event to somebody again."""
        return self.channel is not self.subscription.channel

    def when_settled(self, told: Callable[[bool], None]) -> None:
        """Told in the I/O thread whether the broker has its ack, or it comes again. Ask before you settle it."""
        watched = self.subscription.watched
        watched[self.channel, self.tag] = told
        if self.is_stale:  # nobody looks there any more
            watched.pop((self.channel, self.tag), None)
            told(False)


class Subscription:
    """Belongs into the I/O thread."""

    def __init__(self, registration: Registration, lane: Lane, deliver: Callable[[Delivery], None]) -> None:
        self.registration = registration
        self.lane = lane
        self.prefetch = registration.prefetch or default_prefetch(registration.concurrency)
        self.unsettled = Unsettled()
        self.copies: dict[int, Publication] = {}  # under way, by delivery tag
        self.postponed: dict[int, object] = {}  # copies that failed, until they are tried again: tag -> timer
        self.watched: dict[tuple[Channel, int], Callable[[bool], None]] = {}  # who asks what becomes of a delivery
        self._answering: dict[tuple[Channel, int], Callable[[bool], None]] = {}  # acked, but does the broker know it?
        self.channel: Channel | None = None
        self.consuming = False
        self.failures = 0
        self.pause: object | None = None
        self._deliver = deliver
        self._script: Script[str] | None = None
        self._consumer_tag: str | None = None

    def start(
        self,
        connection: AnyConnection,
        *,
        consuming: Callable[[], None],
        failed: Callable[[Exception], None],
        lost: Callable[[Exception], None],
        cancelled: Callable[[], None],
    ) -> None:
        """Declare and subscribe. `failed`: it could not be done; `lost`, `cancelled`: it is over."""

        def closed(channel: Channel, error: Exception) -> None:
            if script.running:
                script.throw(error)
            elif channel is self.channel:
                lost(error)

        def done(consumer_tag: str) -> None:
            self._consumer_tag = consumer_tag
            self.consuming = True
            self.failures = 0
            consuming()

        def not_done(error: Exception) -> None:
            self.reset()
            failed(error)

        script = self._script = Script(self._steps(connection, closed, cancelled), done=done, failed=not_done)
        script.start()

    def _steps(
        self,
        connection: AnyConnection,
        closed: Callable[[Channel, Exception], None],
        cancelled: Callable[[], None],
    ) -> Steps[str]:
        another = partial(open_channel, connection, closed)
        channel: Channel = yield another()
        channel = yield from declare_receiver(another, channel, self.registration)
        yield lambda done: channel.basic_qos(prefetch_count=self.prefetch, callback=done)
        channel.add_on_cancel_callback(lambda _frame: cancelled())
        self.channel = channel
        frame: Any = yield lambda done: channel.basic_consume(self.registration.name, self._on_message, callback=done)
        return str(frame.method.consumer_tag)

    def _on_message(self, channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        tag = method.delivery_tag
        routing_key = method.routing_key
        if not isinstance(routing_key, str):  # no UTF-8
            routing_key = routing_key.decode("utf-8", "backslashreplace")
        self.unsettled.add(tag)
        self._deliver(Delivery(self, channel, tag, routing_key, method.redelivered, properties, body))

    def stop(self) -> None:
        """Take no more deliveries; what is in hand can still be settled."""
        if self._script is not None and self._script.running:
            self._script.cancel()
            # The broker may have begun to deliver: what is given back would come straight back to us.
            if self.channel is not None and self.channel.is_open:
                self.channel.close()
        if self._consumer_tag is not None and self.channel is not None and self.channel.is_open:
            # pika itself gives back what is on its way to us still.
            self.channel.basic_cancel(self._consumer_tag)
        self._consumer_tag = None
        self.consuming = False

    def send_acks(self) -> None:
        acks = self.unsettled.take_acks()
        if self.channel is not None and self.channel.is_open:
            for tag, multiple in acks:
                self.channel.basic_ack(tag, multiple=multiple)
            acked = [key for key in list(self.watched) if key[0] is self.channel and key[1] not in self.unsettled]
            if acked:
                # Acks are not answered. But the broker does one thing after the other: when it answers this, it has
                # them, and the next event may end this process.
                self._answering.update((key, self.watched.pop(key)) for key in acked)
                self.channel.basic_qos(prefetch_count=self.prefetch, callback=partial(self._on_answer, acked))

    def _on_answer(self, acked: list[tuple[Channel, int]], _frame: object) -> None:
        for key in acked:
            if key in self._answering:
                self._answering.pop(key)(True)

    def give_back(self, tag: int) -> None:
        """Back into the queue, at once."""
        self.unsettled.remove(tag)
        if self.channel is not None and (told := self.watched.pop((self.channel, tag), None)):
            told(False)
        if self.channel is not None and self.channel.is_open:
            self.channel.basic_nack(tag, requeue=True)

    def reset(self) -> list[Publication]:
        """The channel is gone: the broker gives everything unsettled to somebody again.

        Returns the copies under way, which nobody waits for any more.
        """
        if self._script is not None and self._script.running:
            self._script.cancel()
        copies = list(self.copies.values())
        self.copies.clear()
        self.postponed.clear()  # the timers will find a stale delivery
        self.unsettled = Unsettled()
        self.channel = None
        for waiting in (self.watched, self._answering):
            while waiting:
                waiting.popitem()[1](False)
        self._consumer_tag = None
        self.consuming = False
        return copies
