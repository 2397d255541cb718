"""Moves events from a queue to the end of another: copy, confirm, ack. Interrupted anywhere it leaves a duplicate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pika import BasicProperties, exceptions, spec
from pika.channel import Channel

from domain_events.errors import BrokerError, SendError
from domain_events.transport.io_thread import IOThread
from domain_events.transport.migration.looking import count
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.script import Step, Steps
from domain_events.transport.session import Another
from domain_events.transport.wire import moved_properties

PREFETCH = 50
"""Enough to keep the broker's group commit busy, few enough for large events to fit into memory."""

QUIET = 2.0
"""Seconds without an event, after which a queue that nobody publishes to counts as empty. What was routed before its
bindings went may still be on its way between two nodes."""

LONGEST_WAIT = 60.0
"""Seconds without a confirm, after which moving is given up; as when the broker is short of memory."""

SLOWEST_CANCEL = 5.0
"""Seconds to wait for the broker to say that the consumer of a deleted queue has ended."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What steps that move events work with."""

    io: IOThread
    publisher: Publisher
    another: Another


class Move:
    """Consumes from `source` until it is told otherwise. Belongs into the I/O thread."""

    def __init__(self, tools: Tools, channel: Channel, source: str, target: str) -> None:
        self.moved = 0
        self._io = tools.io
        self._publisher = tools.publisher
        self._channel = channel
        self._source = source
        self._target = target
        self._unconfirmed = 0
        self._problem: BrokerError | None = None
        self._told: Callable[[BrokerError | None], None] | None = None
        self._quiet = 0.0
        self._timer: object | None = None
        self._cancelled = False
        self._consumer_tag = ""

    def start(self, done: Callable[[Any], None]) -> None:
        self._channel.add_on_cancel_callback(self._on_cancelled)
        self._consumer_tag = self._channel.basic_consume(self._source, self._on_message, callback=done)

    def until_quiet(self, quiet: float, done: Callable[[BrokerError | None], None]) -> None:
        """A step: answers when nothing has come for `quiet` seconds and all is confirmed, or with what went wrong."""
        self._told = done
        self._quiet = quiet
        self._watch()

    def until_cancelled(self, done: Callable[[BrokerError | None], None]) -> None:
        """A step, when the queue is deleted: answers when the broker has said so and all is confirmed."""
        self._told = done
        self._quiet = 0.0 if self._cancelled else SLOWEST_CANCEL
        self._watch()

    def stop(self, done: Callable[[Any], None]) -> None:
        self._channel.basic_cancel(self._consumer_tag, callback=done)

    def _on_message(self, _channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        self._unconfirmed += 1
        self._watch()
        self._publisher.submit(
            Publication(
                exchange="",
                routing_key=self._target,
                properties=moved_properties(properties, method.routing_key),
                body=body,
                mandatory=True,
                done=partial(self._on_confirmed, method.delivery_tag),
            )
        )

    def _on_confirmed(self, tag: int, error: BrokerError | None) -> None:
        self._unconfirmed -= 1
        if error is None:
            self.moved += 1
            if self._channel.is_open:
                self._channel.basic_ack(tag)
        else:
            self._problem = self._problem or SendError(f"cannot move events from {self._source}: {error}")
        self._watch()

    def _on_cancelled(self, _frame: object) -> None:
        self._cancelled = True
        self._quiet = 0.0
        self._watch()

    def _watch(self) -> None:
        """Every event, and every confirm, begins the silence anew."""
        if self._timer is not None:
            self._io.cancel(self._timer)
            self._timer = None
        if self._told is None:
            return
        if self._problem is not None:
            self._timer = self._io.later(0.0, self._tell)
        elif self._unconfirmed:
            self._timer = self._io.later(LONGEST_WAIT, self._give_up)
        else:
            self._timer = self._io.later(self._quiet, self._tell)

    def _give_up(self) -> None:
        why = self._publisher.problem or "the broker does not answer"
        self._problem = SendError(f"cannot move events from {self._source}: no confirm for {LONGEST_WAIT:g} s: {why}")
        self._tell()

    def _tell(self) -> None:
        self._timer = None
        told, self._told = self._told, None
        if told is not None:
            told(self._problem)


def move(tools: Tools, source: str, target: str, quiet: float = QUIET) -> Steps[int]:
    """Everything in `source`, also what comes meanwhile. Returns how many events."""
    mover = yield from _moving(tools, source, target, quiet)
    yield mover.stop
    return mover.moved


def move_and_delete(tools: Tools, source: str, target: str, quiet: float = QUIET) -> Steps[int]:
    """Everything in `source`, which is deleted then: nothing may publish to it any more.

    RabbitMQ (3.10, 4.0, 4.3) confirms an event that reaches a queue in the moment of its deletion, and drops it.
    """
    mover = yield from _moving(tools, source, target, quiet)
    # Silence alone proves nothing: the queue's leader may be away.
    while (yield from holds_events(tools.another, source)):
        yield from _until(partial(mover.until_quiet, quiet))
    other: Channel = yield tools.another()
    answer: Any = yield lambda done: other.queue_declare(source, passive=True, callback=done)
    if answer.method.consumer_count > 1:
        raise BrokerError(
            f"somebody has begun to consume from {source}; stop its receiver (`domain-events scale NAME=0`, or the "
            f"supervisor), then do this again"
        )
    yield lambda done: other.queue_delete(source, callback=done)
    yield from _until(mover.until_cancelled)
    return mover.moved


def holds_events(another: Another, queue: str) -> Steps[bool]:
    """Whether an event is ready in it. This asks the queue itself, which a passive declare may not do."""
    channel: Channel = yield another()
    try:
        method = yield partial(_get, channel, queue)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 405:  # with a single active consumer it answers nobody else
            raise
        counts = yield from count(another, queue)
        return counts is not None and counts[0] > 0
    channel.close()  # an event that was there goes back
    return method is not None


def _get(channel: Channel, queue: str, done: Callable[[Any], None]) -> None:
    """A step: answers with the method of the event that was there, or None."""
    channel.add_callback(lambda _frame: done(None), [spec.Basic.GetEmpty], one_shot=True)
    channel.basic_get(queue, callback=lambda _channel, method, _properties, _body: done(method))


def _moving(tools: Tools, source: str, target: str, quiet: float) -> Steps[Move]:
    channel: Channel = yield tools.another()
    yield lambda done: channel.basic_qos(prefetch_count=PREFETCH, callback=done)
    mover = Move(tools, channel, source, target)
    yield mover.start
    yield from _until(partial(mover.until_quiet, quiet))
    return mover


def _until(step: Step) -> Steps[None]:
    problem: BrokerError | None = yield step
    if problem is not None:
        raise problem
