"""What `topology apply` does. After each step every event is in some queue; what was interrupted can be done again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from pika.channel import Channel

from domain_events.errors import BrokerError, TopologyMismatch
from domain_events.registration import Registration
from domain_events.transport.declaring import bind_queue, declare_exchange, declare_queue, unbind_queue
from domain_events.transport.migration.looking import FoundQueue, FoundReceiver, count
from domain_events.transport.migration.management import Binding, Listing
from domain_events.transport.migration.moving import QUIET, Tools, holds_events, move, move_and_delete
from domain_events.transport.migration.planning import missing_keys, stale_bindings
from domain_events.transport.script import Steps
from domain_events.transport.topology import (
    SETTLING_TIME,
    Queue,
    dead_letter_queue,
    dead_letter_queue_name,
    retry_queue,
    transit_queue,
)

QUIET_RETRY_QUEUE = 0.5
"""Seconds without an event after which a retry queue is empty: its receiver stands still, so nobody publishes to it."""


def declare_missing(tools: Tools, found: FoundReceiver) -> Steps[list[str]]:
    """Exchange and queues. Returns what was done, for people, as all steps here do."""
    if found.exchange_problem is not None:
        raise TopologyMismatch(found.exchange_problem)
    done = []
    channel: Channel = yield tools.another()
    if not found.exchange_exists:
        channel = yield from declare_exchange(tools.another, channel, found.registration.exchange)
        done.append(f"declared exchange {found.registration.exchange}")
    # The main queue first: see declare_receiver.
    for queue in (found.main, found.dead):
        if queue is not None and not queue.exists and queue.in_transit is None:
            yield from declare_queue(channel, queue.queue)
            done.append(f"declared queue {queue.name}")
    channel.close()
    return done


def bind(tools: Tools, found: FoundReceiver, listing: Listing | None) -> Steps[list[str]]:
    """All keys that are asked for, then no others. Without a listing nobody knows the others."""
    registration = found.registration
    channel: Channel = yield tools.another()
    yield from bind_queue(channel, registration.name, registration.exchange, registration.binding_keys)
    done = []
    if listing is not None:
        done += [f"bound {registration.name} to {key}" for key in missing_keys(found, listing)]
        stale = [binding.key for binding in stale_bindings(found, listing)]
        yield from unbind_queue(channel, registration.name, registration.exchange, stale)
        done += [f"unbound {registration.name} from {key}" for key in stale]
    channel.close()
    return done


def migrate(tools: Tools, found: FoundReceiver, listing: Listing | None) -> Steps[list[str]]:
    """Make its queues anew that have other arguments, and finish what was interrupted. Nobody may consume."""
    todo = [queue for queue in found.queues if queue.mismatches or queue.in_transit is not None]
    if todo and found.main.consumers:
        raise _running(found.name, found.main.consumers)
    done = []
    # The main queue last: what comes back from a retry queue meanwhile waits in the queue that is there.
    for queue in reversed(todo):
        keys = _keys(found, listing) if queue is found.main else ()
        quiet = QUIET_RETRY_QUEUE if queue in found.retries else QUIET
        moved = yield from _make_anew(tools, queue, found.registration, keys, quiet)
        done.append(f"made queue {queue.name} anew; {moved} events moved")
    return done


def rename(
    tools: Tools, old: str, new: Registration, delays: Sequence[int], old_keys: Iterable[str]
) -> Steps[list[str]]:
    """Everything of the receiver `old` becomes that of `new`, whose queues are there.

    `delays`: of the retry queues of `old`, which are left empty. `old_keys`: its bindings, as far as they are known.
    """
    counts = yield from count(tools.another, old)
    if counts is not None and counts[1]:
        raise _running(old, counts[1])
    channel: Channel = yield tools.another()
    if counts is not None:
        yield from unbind_queue(channel, old, new.exchange, {*old_keys, *new.binding_keys})
    yield from _declare_aged(tools, [retry_queue(new.name, delay) for delay in delays])
    done = []
    waiting = 0
    for delay in delays:
        waiting += yield from move(
            tools, retry_queue(old, delay).name, retry_queue(new.name, delay).name, QUIET_RETRY_QUEUE
        )
    if waiting:
        done.append(f"moved {waiting} events that wait for a retry; their delays begin anew")
    if counts is not None:
        moved = yield from move_and_delete(tools, old, new.name)
        done.append(f"moved {moved} events from {old} to {new.name}, and deleted {old}")
    dead = yield from count(tools.another, dead_letter_queue_name(old))
    if dead is not None:
        yield from _declare_aged(tools, [dead_letter_queue(new.name)])
        moved = yield from move_and_delete(tools, dead_letter_queue_name(old), dead_letter_queue_name(new.name))
        done.append(f"moved {moved} dead letters from {old} to {new.name}")
    return done


def unbind(tools: Tools, bindings: Iterable[Binding]) -> Steps[list[str]]:
    channel: Channel = yield tools.another()
    done = []
    for binding in bindings:
        yield from unbind_queue(channel, binding.queue, binding.exchange, [binding.key])
        done.append(f"unbound {binding.queue} from {binding.key}")
    channel.close()
    return done


def delete_empty(tools: Tools, names: Iterable[str]) -> Steps[list[str]]:
    """Those that have no ready event and no consumer. What they may hold besides, the caller knows."""
    done = []
    channel: Channel = yield tools.another()
    for name in names:
        if (yield from count(tools.another, name)) == (0, 0) and not (yield from holds_events(tools.another, name)):
            yield lambda done, name=name: channel.queue_delete(name, callback=done)  # type: ignore[misc]
            done.append(f"deleted queue {name}")
    channel.close()
    return done


def _make_anew(
    tools: Tools, found: FoundQueue, registration: Registration, keys: Iterable[str], quiet: float
) -> Steps[int]:
    """Through another queue, which gets what comes meanwhile. `keys`: all by which it is bound."""
    queue, transit = found.queue, transit_queue(found.queue)
    exchange, wanted = registration.exchange, registration.binding_keys if keys else ()
    channel: Channel = yield tools.another()
    yield from _declare_aged(tools, [transit])
    # From here on every event is in one of the two, or in both.
    yield from bind_queue(channel, transit.name, exchange, wanted)
    if found.mismatches:
        yield from unbind_queue(channel, queue.name, exchange, keys)
        yield from move_and_delete(tools, queue.name, transit.name, quiet)
    yield from _declare_aged(tools, [queue])
    yield from bind_queue(channel, queue.name, exchange, wanted)
    yield from unbind_queue(channel, transit.name, exchange, wanted)
    channel.close()
    return (yield from move_and_delete(tools, transit.name, queue.name, quiet))


def _keys(found: FoundReceiver, listing: Listing | None) -> set[str]:
    known = [binding.key for binding in stale_bindings(found, listing)] if listing is not None else []
    return {*found.registration.binding_keys, *known}


def _running(receiver: str, consumers: int) -> BrokerError:
    return BrokerError(
        f"receiver {receiver!r} is running ({consumers} consumer{'s' if consumers > 1 else ''}): stop it first, with "
        f"`domain-events scale {receiver}=0` or its supervisor, then do this again"
    )


def _declare_aged(tools: Tools, queues: Sequence[Queue]) -> Steps[None]:
    """And wait until they survive a crash of the broker."""
    if queues:
        channel: Channel = yield tools.another()
        for queue in queues:
            yield from declare_queue(channel, queue)
        channel.close()
        yield lambda done: tools.io.later(SETTLING_TIME, partial(done, None))
