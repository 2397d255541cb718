"""What is at the broker, compared with what the receivers want. Looks only: the broker itself is asked what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pika import exceptions
from pika.channel import Channel

from domain_events.errors import BrokerError, TopologyMismatch
from domain_events.registration import Registration
from domain_events.transport.declaring import declare_exchange, declare_queue
from domain_events.transport.migration.management import Listing
from domain_events.transport.problems import channel_problem
from domain_events.transport.script import Steps
from domain_events.transport.session import Another
from domain_events.transport.topology import (
    MOVING,
    Queue,
    dead_letter_queue,
    main_queue,
    retry_delays,
    retry_queue,
    retry_queue_delay,
    transit_queue,
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An argument that is not as wanted. As text: what the broker says, or holds."""

    argument: str
    there: str
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundQueue:
    queue: Queue
    """As wanted."""
    exists: bool
    messages: int = 0
    """Ready."""
    consumers: int = 0
    mismatches: Sequence[Mismatch] = ()
    in_transit: int | None = None
    """Events in the queue of an unfinished migration; None: there is no such queue."""

    @property
    def name(self) -> str:
        return self.queue.name

    @property
    def is_as_wanted(self) -> bool:
        return self.exists and not self.mismatches


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundReceiver:
    registration: Registration
    exchange_exists: bool
    exchange_problem: str | None
    """Why the exchange cannot be what is wanted."""
    main: FoundQueue
    dead: FoundQueue | None
    retries: Sequence[FoundQueue] = ()
    """Those that exist."""

    @property
    def name(self) -> str:
        return self.registration.name

    @property
    def queues(self) -> Sequence[FoundQueue]:
        return [self.main, *([self.dead] if self.dead else ()), *self.retries]


def look(another: Another, registration: Registration, listing: Listing | None) -> Steps[FoundReceiver]:
    """Without a listing its retry queues are found by asking for each name that they may have: about a second."""
    name = registration.name
    exchange_exists, exchange_problem = yield from _look_at_exchange(another, registration.exchange)
    main = yield from _look_at_queue(another, main_queue(registration), listing)
    dead = None
    if registration.dead_letter:
        dead = yield from _look_at_queue(another, dead_letter_queue(name), listing)
    retries = []
    for delay in retry_delays() if listing is None else listed_delays(name, listing.queues):
        found = yield from _look_at_queue(another, retry_queue(name, delay), listing)
        if found.exists or found.in_transit is not None:
            retries.append(found)
    return FoundReceiver(
        registration=registration,
        exchange_exists=exchange_exists,
        exchange_problem=exchange_problem,
        main=main,
        dead=dead,
        retries=retries,
    )


def listed_delays(receiver: str, names: Iterable[str]) -> list[int]:
    """Of its retry queues, also of those that are being made anew. Milliseconds, ascending."""
    found = (retry_queue_delay(receiver, name.removesuffix(MOVING)) for name in names)
    return sorted({delay for delay in found if delay is not None})


def count(another: Another, name: str) -> Steps[tuple[int, int] | None]:
    """How many events are ready in a queue, and its consumers; None: there is no such queue."""
    channel: Channel = yield another()
    try:
        answer: Any = yield lambda done: channel.queue_declare(name, passive=True, callback=done)
    except exceptions.ChannelClosedByBroker as error:
        # Also 404: "home node ... is down". That queue is there.
        if error.reply_code != 404 or "no queue" not in error.reply_text:
            raise
        return None
    channel.close()
    return answer.method.message_count, answer.method.consumer_count


def _look_at_exchange(another: Another, exchange: str) -> Steps[tuple[bool, str | None]]:
    channel: Channel = yield another()
    try:
        yield lambda done: channel.exchange_declare(exchange, passive=True, callback=done)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return False, None
    try:
        channel = yield from declare_exchange(another, channel, exchange)
    except exceptions.ChannelClosedByBroker as error:
        return True, str(channel_problem(error))
    channel.close()
    return True, None


def _look_at_queue(another: Another, queue: Queue, listing: Listing | None) -> Steps[FoundQueue]:
    transit = transit_queue(queue).name
    in_transit = None
    if listing is None or transit in listing.queues:
        moving = yield from count(another, transit)
        in_transit = None if moving is None else moving[0]
    counts = yield from count(another, queue.name)
    if counts is None:
        return FoundQueue(queue=queue, exists=False, in_transit=in_transit)
    mismatches = yield from _compare(another, queue)
    return FoundQueue(
        queue=queue,
        exists=True,
        messages=counts[0],
        consumers=counts[1],
        mismatches=mismatches,
        in_transit=in_transit,
    )


def _compare(another: Another, queue: Queue) -> Steps[list[Mismatch]]:
    """All arguments that differ. The broker names one at a time: what it has is asked for then, until it is content."""
    asked = dict(queue.arguments)
    found: list[Mismatch] = []
    while True:
        channel: Channel = yield another()
        try:
            yield from declare_queue(channel, Queue(queue.name, asked))
        except exceptions.ChannelClosedByBroker as error:
            problem = channel_problem(error)
            if not isinstance(problem, TopologyMismatch):
                raise BrokerError(f"queue {queue.name!r}: {problem}") from error
            if found and problem.argument == found[-1].argument:
                return found  # its value cannot be asked for
            found.append(Mismatch(problem.argument, problem.there, problem.wanted))
            if problem.there == "none":
                asked.pop(problem.argument, None)
            elif problem.argument.startswith("x-"):
                asked[problem.argument] = _value(problem.there)
        else:
            channel.close()
            return found


def _value(text: str) -> str | int:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdecimal() else text.strip("'")
