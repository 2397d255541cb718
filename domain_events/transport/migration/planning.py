"""What `topology plan` tells: everything at the broker that is not as the code wants it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from domain_events.transport.migration.looking import FoundQueue, FoundReceiver
from domain_events.transport.migration.management import Binding, ListedQueue, Listing
from domain_events.transport.topology import transit_queue


class Kind(enum.StrEnum):
    EXCHANGE = "exchange"  # it exists, with another type; nothing here can change that
    MISSING = "missing"  # an exchange, a queue or a binding
    ARGUMENTS = "arguments"  # of a queue: it has to be made anew
    UNFINISHED = "unfinished"  # a migration of a queue that was interrupted
    STALE_BINDING = "stale-binding"  # its receiver does not ask for it any more
    UNUSED_RETRY_QUEUE = "unused-retry-queue"  # empty, and its receiver stands still
    ORPHAN = "orphan"  # queues of a receiver that this code has not got, and that nobody consumes from


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    kind: Kind
    receiver: str
    exchange: str | None = None
    queue: str | None = None
    key: str | None = None
    argument: str | None = None
    there: str | None = None
    wanted: str | None = None
    events: int | None = None
    """That are concerned; None: unknown."""
    consumers: int | None = None
    detail: str | None = None


def differences(receivers: Sequence[FoundReceiver], listing: Listing | None) -> list[Difference]:
    """`listing`: None when the management plugin does not tell; then bindings and orphans are not seen."""
    found = [difference for receiver in receivers for difference in _of_receiver(receiver, listing)]
    if listing is not None:
        found += orphans(receivers, listing)
    return found


def stale_bindings(receiver: FoundReceiver, listing: Listing) -> list[Binding]:
    registration = receiver.registration
    return [binding for binding in _bindings(receiver, listing) if binding.key not in registration.binding_keys]


def missing_keys(receiver: FoundReceiver, listing: Listing) -> list[str]:
    there = {binding.key for binding in _bindings(receiver, listing)}
    return [key for key in receiver.registration.binding_keys if key not in there]


def orphans(receivers: Sequence[FoundReceiver], listing: Listing) -> list[Difference]:
    """Of receivers that are not among `receivers`. Where somebody consumes, they belong to another service."""
    known = {receiver.name for receiver in receivers}
    exchanges = {receiver.registration.exchange for receiver in receivers}
    names = dict.fromkeys(binding.queue for binding in listing.bindings if binding.exchange in exchanges)
    names.update(dict.fromkeys(filter(None, map(owner, listing.queues))))
    return [
        Difference(kind=Kind.ORPHAN, receiver=name, queue=queues[0].name, events=total(queues), consumers=0)
        for name in names
        if name not in known and owner(name) is None
        if (queues := queues_of(name, listing)) and not any(queue.consumers or queue.exclusive for queue in queues)
    ]


def owner(queue: str) -> str | None:
    """The receiver of a dead letter, retry or transit queue; None when it is none, by its name."""
    if queue.endswith(":dead"):
        return queue.removesuffix(":dead")
    receiver, retry, _ = queue.partition(":retry:")
    return receiver.removesuffix(":dead") if retry else None


def queues_of(receiver: str, listing: Listing) -> list[ListedQueue]:
    """The main queue first."""
    found = [queue for name, queue in listing.queues.items() if owner(name) == receiver]
    return [*filter(None, [listing.queues.get(receiver)]), *found]


def total(queues: Collection[ListedQueue]) -> int | None:
    """Of the events in them; None when one cannot tell."""
    counts = [queue.messages for queue in queues if queue.messages is not None]
    return sum(counts) if len(counts) == len(queues) else None


def _of_receiver(receiver: FoundReceiver, listing: Listing | None) -> Iterator[Difference]:
    registration = receiver.registration
    exchange = registration.exchange
    if receiver.exchange_problem is not None:
        yield Difference(
            kind=Kind.EXCHANGE, receiver=receiver.name, exchange=exchange, detail=receiver.exchange_problem
        )
    elif not receiver.exchange_exists:
        yield Difference(kind=Kind.MISSING, receiver=receiver.name, exchange=exchange)
    for queue in receiver.queues:
        yield from _of_queue(receiver.name, queue)
    if listing is None:
        return
    for key in missing_keys(receiver, listing):
        yield Difference(kind=Kind.MISSING, receiver=receiver.name, exchange=exchange, queue=receiver.name, key=key)
    for binding in stale_bindings(receiver, listing):
        yield Difference(
            kind=Kind.STALE_BINDING,
            receiver=receiver.name,
            exchange=exchange,
            queue=receiver.name,
            key=binding.key,
        )
    for name in unused_retry_queues(receiver, listing):
        yield Difference(kind=Kind.UNUSED_RETRY_QUEUE, receiver=receiver.name, queue=name, events=0)


def unused_retry_queues(receiver: FoundReceiver, listing: Listing) -> list[str]:
    """The plugin has to say that they are empty: events whose way back is gone are in no other count."""
    if receiver.main.consumers:
        return []
    # Both counts: that of the plugin is some seconds old.
    names = [queue.name for queue in receiver.retries if queue.is_as_wanted and not queue.messages]
    return [name for name in names if name in listing.queues and listing.queues[name].messages == 0]


def _of_queue(receiver: str, queue: FoundQueue) -> Iterator[Difference]:
    if not queue.exists and queue.in_transit is None:
        yield Difference(kind=Kind.MISSING, receiver=receiver, queue=queue.name)
    if queue.in_transit is not None:
        yield Difference(
            kind=Kind.UNFINISHED,
            receiver=receiver,
            queue=queue.name,
            events=queue.in_transit,
            detail=transit_queue(queue.queue).name,
        )
    for mismatch in queue.mismatches:
        yield Difference(
            kind=Kind.ARGUMENTS,
            receiver=receiver,
            queue=queue.name,
            argument=mismatch.argument,
            there=mismatch.there,
            wanted=mismatch.wanted,
            events=queue.messages,
            consumers=queue.consumers,
        )


def _bindings(receiver: FoundReceiver, listing: Listing) -> Iterable[Binding]:
    registration = receiver.registration
    return [
        binding
        for binding in listing.bindings
        if binding.exchange == registration.exchange and binding.queue == registration.name
    ]
