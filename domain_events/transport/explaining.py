"""Who gets an event with a routing key: by what the code asks for, and by what is bound at the broker."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pika import exceptions

from domain_events.registration import Registration
from domain_events.settings import Broker
from domain_events.transport.migration.looking import count
from domain_events.transport.migration.management import Forwarding, Listing
from domain_events.transport.problems import channel_problem
from domain_events.transport.routing import matches
from domain_events.transport.script import Steps
from domain_events.transport.session import Another, Session
from domain_events.transport.topology import MOVING, dead_letter_queue_name

LOOKING = 30.0
"""Seconds for all queues together."""


class Verdict(enum.StrEnum):
    """About a receiver that the code has."""

    GETS = "gets"
    MISSING = "missing"  # the code asks for it, but nothing is bound
    STALE = "stale"  # it gets what its code does not ask for
    BY_CODE = "by_code"  # the code asks for it; what is bound could not be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A queue that was looked for. `exists` is None when that cannot be known: `problem` says why."""

    name: str
    exists: bool | None = None
    messages: int | None = None  # ready
    consumers: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """To a receiver that the code has."""

    registration: Registration
    keys: tuple[str, ...]
    """The binding keys of the code that match."""
    live_keys: tuple[str, ...] | None
    """Those at the broker that match; None: they could not be listed."""
    is_moving: bool
    """Its queue is being made anew: another one is bound in its place."""
    queue: Place
    dead: Place | None

    @property
    def verdict(self) -> Verdict:
        if self.live_keys is None:
            # A queue that is not there is not bound either.
            return Verdict.MISSING if self.queue.exists is False else Verdict.BY_CODE
        if not self.live_keys:
            return Verdict.MISSING
        return Verdict.GETS if self.keys else Verdict.STALE

    @property
    def stale_keys(self) -> Sequence[str]:
        return [key for key in self.live_keys or () if key not in self.registration.binding_keys]

    @property
    def missing_keys(self) -> Sequence[str]:
        return [] if self.live_keys is None else [key for key in self.keys if key not in self.live_keys]

    @property
    def differs(self) -> bool:
        return self.verdict in (Verdict.MISSING, Verdict.STALE) or bool(self.stale_keys or self.missing_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherWay:
    """To a queue that is bound, and belongs to no receiver of the code that uses this exchange."""

    exchange: str
    keys: tuple[str, ...]
    queue: Place
    is_temporary: bool
    """It ends with the connection that has it."""
    is_ours: bool
    """It is a receiver's of the code, which uses another exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    receivers: Sequence[Way]
    others: Sequence[OtherWay]
    forwardings: Sequence[Forwarding]
    """To other exchanges. What becomes of it there is not looked at."""

    @property
    def queues(self) -> Sequence[str]:
        """That AMQP can be asked for. Others may not even look at a temporary one."""
        names = [place.name for way in self.receivers for place in (way.queue, way.dead) if place is not None]
        return names + [way.queue.name for way in self.others if not way.is_temporary]


def ways(
    routing_key: str,
    registrations: Sequence[Registration],
    exchanges: Collection[str],
    listing: Listing | None,
    places: Mapping[str, Place],
) -> Ways:
    """From these exchanges, at one broker. Pure. `listing`: None when the management plugin does not answer."""
    ours = {registration.name for registration in registrations}
    known = {**_known(listing), **places}

    def place(name: str) -> Place:
        return known.get(name) or Place(name=name, exists=False if listing else None)

    bound: dict[tuple[str, str], list[str]] = {}
    for binding in listing.bindings if listing else ():
        if binding.exchange in exchanges and matches(binding.key, routing_key):
            bound.setdefault((binding.exchange, binding.queue), []).append(binding.key)
    receivers = []
    for registration in registrations:
        name, exchange = registration.name, registration.exchange
        if exchange not in exchanges:
            continue
        keys = tuple(key for key in registration.binding_keys if matches(key, routing_key))
        live = bound.pop((exchange, name), [])
        moving = bound.pop((exchange, name + MOVING), [])
        if keys or live or moving:
            receivers.append(
                Way(
                    registration=registration,
                    keys=keys,
                    live_keys=tuple(sorted({*live, *moving})) if listing else None,
                    is_moving=bool(moving),
                    queue=place(name),
                    dead=place(dead_letter_queue_name(name)) if registration.dead_letter else None,
                )
            )
    others = [
        OtherWay(
            exchange=exchange,
            keys=tuple(sorted(keys)),
            queue=place(queue),
            is_temporary=bool(listing and queue in listing.queues and listing.queues[queue].exclusive),
            is_ours=queue.removesuffix(MOVING) in ours,
        )
        for (exchange, queue), keys in bound.items()
    ]
    forwardings = [
        each
        for each in (listing.forwardings if listing else ())
        if each.exchange in exchanges and matches(each.key, routing_key)
    ]
    return Ways(receivers=receivers, others=others, forwardings=forwardings)


def look(brokers: Sequence[Broker], queues: Iterable[str]) -> dict[str, Place]:
    """Ask the broker itself for each queue. Raises BrokerError when it cannot be asked at all."""

    def steps(another: Another) -> Steps[dict[str, Place]]:
        found = {}
        for name in queues:
            found[name] = yield from _look(another, name)
        return found

    with Session(brokers, "explain") as session:
        return session.run(steps, LOOKING)


def _look(another: Another, name: str) -> Steps[Place]:
    try:
        counts = yield from count(another, name)
    except exceptions.ChannelClosedByBroker as error:
        return Place(name=name, problem=str(channel_problem(error)))
    if counts is None:
        return Place(name=name, exists=False)
    return Place(name=name, exists=True, messages=counts[0], consumers=counts[1])


def _known(listing: Listing | None) -> dict[str, Place]:
    """The plugin's counts are some seconds old, and of all events, not of those that are ready; consumers it has."""
    if listing is None:
        return {}
    return {name: Place(name=name, exists=True, consumers=queue.consumers) for name, queue in listing.queues.items()}
