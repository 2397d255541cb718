"""One receiver's place on the broker: its channel, and what it was given and has not settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pika import BasicProperties
from pika.channel import Channel

from domain_events.registration import LARGEST_PREFETCH, Registration
from domain_events.transport.calm import Calm
from domain_events.transport.declaring import declare_receiver, open_channel
from domain_events.transport.deliveries import Deliveries
from domain_events.transport.direct import DirectConnection
from domain_events.transport.handover import Lane
from domain_events.transport.publication import Publication
from domain_events.transport.script import Clock, NoAnswer, Script, Steps
from domain_events.transport.tolerance import decode_properties, is_plain_json, key_of
from domain_events.transport.unsettled import Unsettled

LONGEST_SILENCE = 15.0
MOST_PATIENCE = 600.0
"""Seconds without an answer, after which a channel is given up for a new one: from the first to the second, doubling.
A queue that hangs in the broker, or has no majority of its nodes, keeps a channel waiting for ever without a word. What
it was asked for, it still does when it comes back, so asking often does not help."""

SMALLEST_FRAME = 4096
"""Bytes, that every AMQP peer must accept (AMQP 0-9-1, section 2.3.7)."""

HEADER_FRAME = 20
"""Bytes of a header frame that are no properties (AMQP 0-9-1, sections 2.3.5 and 2.3.5.2)."""

DEFAULT_PREFETCH = 250
"""Few enough to be shared fairly between processes, enough to keep one busy: see docs/decisions/0032."""


def default_prefetch(concurrency: int) -> int:
    """While as many events are in hand as may be, as many wait for them."""
    return max(DEFAULT_PREFETCH, min(2 * concurrency, LARGEST_PREFETCH))


class Delivery:
    """An event handed to us. Its tag is worth something on its `channel` only."""

    __slots__ = ("begun", "body", "channel", "raw_properties", "routing_key", "subscription", "tag")

    def __init__(
        self,
        subscription: Subscription,
        channel: Channel,
        tag: int,
        routing_key: str,
        properties: BasicProperties | bytes,
        body: bytes,
    ) -> None:
        """`properties`: as bytes they are decoded when somebody asks for them, which few do."""
        self.subscription = subscription
        self.channel = channel
        self.tag = tag
        self.routing_key = routing_key
        self.raw_properties = properties
        self.body = body
        self.begun = 0.0
        """When it was taken in hand (time.monotonic()); 0.0: not yet."""

    @property
    def registration(self) -> Registration:
        return self.subscription.registration

    @property
    def is_plain(self) -> bool:
        """Whether it is known, without decoding the properties, that this is JSON and has no headers of ours."""
        return is_plain_json(self.raw_properties)

    @property
    def properties(self) -> BasicProperties:
        properties = self.raw_properties
        if isinstance(properties, bytes):
            properties = self.raw_properties = decode_properties(properties)
        return properties

    @property
    def is_stale(self) -> bool:
        """The channel is gone, and the broker gives the event to somebody again."""
        return self.channel is not self.subscription.channel

    @property
    def largest_headers(self) -> int:
        """Bytes of properties, headers and all, that the broker takes: they go in one frame."""
        return self.subscription.largest_frame - HEADER_FRAME

    def when_settled(self, told: Callable[[bool], None]) -> None:
        """Told in the I/O thread whether the broker has its ack, or it comes again. Ask before you settle it."""
        watched = self.subscription.watched
        watched[self.channel, self.tag] = told
        if self.is_stale:  # nobody looks there any more
            watched.pop((self.channel, self.tag), None)
            told(False)


class Subscription:
    """Belongs into the I/O thread."""

    def __init__(
        self,
        registration: Registration,
        lane: Lane,
        deliver: Callable[[Delivery], None],
        *,
        clock: Clock,
        patience: float = LONGEST_SILENCE,
    ) -> None:
        self.registration = registration
        self.lane = lane
        self.prefetch = registration.prefetch or default_prefetch(registration.concurrency)
        self.unsettled = Unsettled()
        self.calm = Calm()
        self.copies: dict[int, Publication] = {}  # under way, by delivery tag
        self.postponed: dict[int, object] = {}  # copies that failed, until they are tried again: tag -> timer
        self.watched: dict[tuple[Channel, int], Callable[[bool], None]] = {}  # who asks what becomes of a delivery
        self._answering: dict[tuple[Channel, int], Callable[[bool], None]] = {}  # acked, but does the broker know it?
        self.channel: Channel | None = None
        self.largest_frame = SMALLEST_FRAME
        """Bytes, as agreed on with the broker for this connection."""
        self.consuming = False
        self.has_consumed = False
        """Ever: then what refuses it now was not so from the beginning, and may pass."""
        self.failures = 0
        self.pause: object | None = None
        self.is_served = False
        """Whether the broker has answered anything since the start: if not, it serves the whole connection no more."""
        self._deliver = deliver
        self._clock = clock
        self._longest_silence = patience
        self._patience = patience
        self._script: Script[str] | None = None
        self._opened: Channel | None = None  # the newest
        self._consumer_tag: str | None = None
        self._deliveries: Deliveries | None = None  # of the connection

    def start(
        self,
        connection: DirectConnection,
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
            self.consuming = self.has_consumed = True
            self.failures = 0
            self._patience = self._longest_silence
            consuming()

        def not_done(error: Exception) -> None:
            self.reset()
            if isinstance(error, NoAnswer):
                self._patience = min(self._patience * 2, MOST_PATIENCE)
                # Goes out when the broker has answered what it was asked before.
                self._close_channel()
            failed(error)

        self.is_served = False
        self.largest_frame = int(connection.params.frame_max)
        script = self._script = Script(
            self._steps(connection, closed, cancelled),
            done=done,
            failed=not_done,
            clock=self._clock,
            patience=self._patience,
        )
        script.start()

    def _steps(
        self,
        connection: DirectConnection,
        closed: Callable[[Channel, Exception], None],
        cancelled: Callable[[], None],
    ) -> Steps[str]:
        another = partial(open_channel, connection, closed, opened=self._on_channel)
        channel: Channel = yield another()
        channel = yield from declare_receiver(another, channel, self.registration)
        yield lambda done: channel.basic_qos(prefetch_count=self.prefetch, callback=done)
        channel.add_on_cancel_callback(lambda _frame: cancelled() if channel is self.channel else None)
        self.channel = channel
        frame: Any = yield lambda done: channel.basic_consume(self.registration.name, self._on_message, callback=done)
        tag = str(frame.method.consumer_tag)
        self._leave_to_pika()
        self._deliveries = connection.deliveries
        self._deliveries.expect(channel.channel_number, tag, partial(self._on_cut, channel))
        return tag

    def _on_channel(self, channel: Channel) -> None:
        self.is_served = True
        self._opened = channel

    def _close_channel(self) -> None:
        channel, self._opened = self._opened, None
        if channel is not None and channel.is_open:
            channel.close()

    def _on_message(self, channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        if channel is not self.channel:
            return  # given up; its deliveries go back when the broker closes it
        tag = method.delivery_tag
        self.unsettled.add(tag)
        self._deliver(Delivery(self, channel, tag, key_of(method), properties, body))

    def _on_cut(self, channel: Channel, tag: int, routing_key: str, properties: bytes, body: bytes) -> None:
        """As `_on_message`, for what did not go through pika."""
        if channel is not self.channel:
            return
        self.unsettled.add(tag)
        self._deliver(Delivery(self, channel, tag, routing_key, properties, body))

    def _leave_to_pika(self) -> None:
        if self._deliveries is not None and self.channel is not None:
            self._deliveries.leave(self.channel.channel_number)

    def stop(self) -> None:
        """Take no more deliveries; what is in hand can still be settled."""
        if self._script is not None and self._script.running:
            self._script.cancel()
            # The broker may have begun to deliver: what is given back would come straight back to us.
            self._close_channel()
        if self._consumer_tag is not None and self.channel is not None and self.channel.is_open:
            # pika itself gives back what is on its way to us still.
            self._leave_to_pika()
            self.channel.basic_cancel(self._consumer_tag)
        self._consumer_tag = None
        self.consuming = False

    def send_acks(self) -> None:
        acks = self.unsettled.take_acks()
        if self.channel is not None and self.channel.is_open:
            for tag, multiple in acks:
                self.calm.note()
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
            self.calm.note()
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
        self.calm = Calm()
        self._leave_to_pika()
        self.channel = None
        for waiting in (self.watched, self._answering):
            while waiting:
                waiting.popitem()[1](False)
        self._consumer_tag = None
        self.consuming = False
        return copies
