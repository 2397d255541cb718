"""A live tail: a temporary queue of one's own that gets a copy of what is sent. Nobody else misses anything by it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias

from pika import BasicProperties, exceptions
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.errors import BrokerError
from domain_events.events import DomainEvent
from domain_events.settings import Broker
from domain_events.transport.connection import CLOSE_TIMEOUT, Connection
from domain_events.transport.declaring import bind_queue, declare_exchange, open_channel
from domain_events.transport.io_thread import IOThread
from domain_events.transport.pausing import pause
from domain_events.transport.problems import channel_problem
from domain_events.transport.script import Script, Steps
from domain_events.transport.session import Another
from domain_events.transport.tolerance import key_of
from domain_events.transport.wire import read_event

NAME = "domain-events-watch-"
"""What the names of the queues begin with."""

MOST_WAITING = 10_000
"""Events that wait at the broker for somebody who does not keep up; then the oldest of them are dropped."""

LARGEST_WAITING = 64 * 1024 * 1024
"""Bytes of them."""

PREFETCH = 250

LOOKED_FOR_DROPPED_EVERY = 2.0
"""Seconds."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries to connect: somebody is looking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An event, or what somebody sent as one."""

    routing_key: str
    properties: BasicProperties
    body: bytes
    at: float
    """Unix seconds."""
    channel: Channel
    tag: int
    is_plain: bool = False

    def event(self) -> DomainEvent:
        """Raises MalformedEvent."""
        return read_event(self)


@dataclass(frozen=True, slots=True)
class Listening:
    """From now on events arrive. `missed`: for so many seconds there was no queue; None at the first time."""

    missed: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """It is tried again."""

    error: BrokerError


@dataclass(frozen=True, slots=True)
class Dropped:
    """The broker has dropped events, because more of them were waiting for us than may. How many is not known."""


@dataclass(frozen=True, slots=True)
class Blind:
    """This login may not have what tells of dropped events."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not even begin."""

    error: BrokerError


Told: TypeAlias = Arrived | Listening | Lost | Dropped | Blind | Failed


class Watching:
    """To be asked by one thread; the broker is talked to in another. A context manager, which begins and ends it."""

    def __init__(
        self, brokers: Sequence[Broker], exchange: str, binding_keys: Sequence[str], *, may_declare: bool
    ) -> None:
        """`may_declare`: the exchange, when it is not there yet."""
        self._exchange = exchange
        self._binding_keys = binding_keys
        self._may_declare = may_declare
        self._told: SimpleQueue[Told] = SimpleQueue()
        self._io = IOThread("de-watch", self._on_crashed)
        self._connection = Connection(self._io, brokers, name="watch", opened=self._on_opened, lost=self._on_lost)
        self._script: Script[Channel] | None = None
        self._channel: Channel | None = None
        self._has_listened = False
        self._is_leaving = False
        self._failures = 0
        self._problem: BrokerError | None = None
        self._lost_at = 0.0
        self._marker: str | None = None

    def __enter__(self) -> Self:
        self._io.start()
        self._io.call(self._connection.open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = threading.Event()
        self._io.call(partial(self._leave, left))
        left.wait(CLOSE_TIMEOUT + 1.0)
        self._io.stop()

    def next(self, timeout: float) -> Told | None:
        """What is new; None when nothing is for `timeout` seconds."""
        try:
            return self._told.get(timeout=max(0.0, timeout))
        except Empty:
            return None

    @property
    def has_more(self) -> bool:
        """Without waiting."""
        return not self._told.empty()

    def done(self, last: Arrived) -> None:
        """With this one and all before it: the broker may send more."""

        def ack() -> None:
            if last.channel is self._channel and last.channel.is_open:
                last.channel.basic_ack(last.tag, multiple=True)

        self._io.call(ack)

    # In the I/O thread

    def _on_opened(self, connection: AnyConnection) -> None:
        another = partial(open_channel, connection, self._on_channel_closed)
        self._script = Script(self._steps(another), done=self._on_listening, failed=self._on_failed)
        self._script.start()

    def _steps(self, another: Another) -> Steps[Channel]:
        channel: Channel = yield another()
        channel = yield from self._declare_exchange(another, channel)
        name = f"{NAME}{secrets.token_hex(8)}"
        marker = f"{name}:dropped"
        try:
            # What is dropped goes here, where there is room for one: that tells that something was.
            yield from _declare(channel, marker, {"x-max-length": 1})
            of_marker = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": marker}
            yield from _declare(channel, name, of_marker)
            self._marker = marker
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 403:
                raise
            channel = yield another()
            yield from _declare(channel, name, {})
            self._marker = None
            self._told.put(Blind())
        yield from bind_queue(channel, name, self._exchange, self._binding_keys)
        yield lambda done: channel.basic_qos(prefetch_count=PREFETCH, callback=done)
        channel.add_on_cancel_callback(lambda _frame: self._connection.drop())
        self._channel = channel
        yield lambda done: channel.basic_consume(name, self._on_message, exclusive=True, callback=done)
        return channel

    def _declare_exchange(self, another: Another, channel: Channel) -> Steps[Channel]:
        try:
            yield lambda done: channel.exchange_declare(self._exchange, passive=True, callback=done)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404 or not self._may_declare:
                raise
            channel = yield another()
            channel = yield from declare_exchange(another, channel, self._exchange)
        return channel

    def _on_message(self, channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        self._told.put(
            Arrived(
                routing_key=key_of(method),
                properties=properties,
                body=body,
                at=time.time(),
                channel=channel,
                tag=method.delivery_tag,
            )
        )

    def _on_listening(self, channel: Channel) -> None:
        missed = time.monotonic() - self._lost_at if self._has_listened else None
        self._has_listened = True
        self._failures = 0
        self._told.put(Listening(missed))
        self._look_for_dropped(channel)

    def _look_for_dropped(self, channel: Channel) -> None:
        if self._marker is None or channel is not self._channel or not channel.is_open:
            return
        channel.queue_purge(self._marker, callback=partial(self._on_purged, channel))

    def _on_purged(self, channel: Channel, frame: Any) -> None:
        if frame.method.message_count:
            self._told.put(Dropped())
        self._io.later(LOOKED_FOR_DROPPED_EVERY, partial(self._look_for_dropped, channel))

    def _on_failed(self, error: Exception) -> None:
        self._problem = channel_problem(error)
        self._connection.drop()

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        # When the connection goes, _on_lost knows why.
        if not isinstance(error, exceptions.ChannelClosedByBroker):
            return
        if self._script is not None and self._script.running:
            self._script.throw(error)
        elif channel is self._channel:
            self._on_failed(error)

    def _on_lost(self, error: BrokerError) -> None:
        if self._script is not None and self._script.running:
            self._script.cancel()
        problem, self._problem = self._problem or error, None
        if self._channel is not None:
            self._lost_at = time.monotonic()
        self._channel = None
        if self._is_leaving:
            return
        if not self._has_listened:
            self._told.put(Failed(problem))
            return
        self._told.put(Lost(problem))
        self._io.later(min(LONGEST_PAUSE, pause(self._failures)), self._connection.open)
        self._failures += 1

    def _on_crashed(self, error: BaseException) -> None:
        self._told.put(Failed(BrokerError(f"an error of this library: {error!r}")))

    def _leave(self, left: threading.Event) -> None:
        self._is_leaving = True
        if self._script is not None and self._script.running:
            self._script.cancel()
        self._connection.close(left.set)


def _declare(channel: Channel, name: str, more: dict[str, Any]) -> Steps[None]:
    """A queue that is this connection's alone and ends with it, the only transient kind that RabbitMQ 4.3 takes.
    Bounded, and not of the type that a virtual host may have by default: only a classic queue can be exclusive."""
    arguments = {
        "x-queue-type": "classic",
        "x-max-length": MOST_WAITING,
        "x-max-length-bytes": LARGEST_WAITING,
        "x-overflow": "drop-head",
        **more,
    }
    yield lambda done: channel.queue_declare(name, exclusive=True, arguments=arguments, callback=done)
