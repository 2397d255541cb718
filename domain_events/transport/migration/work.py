"""`topology plan` and `topology apply` for the receivers of one broker, for a thread that has no I/O loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from domain_events.errors import BrokerError, NoSuchReceiver
from domain_events.registration import Registration
from domain_events.settings import Broker, Brokers
from domain_events.transport.migration import applying
from domain_events.transport.migration.looking import FoundReceiver, count, listed_delays, look
from domain_events.transport.migration.management import Listing, Management
from domain_events.transport.migration.moving import Tools
from domain_events.transport.migration.planning import (
    Difference,
    differences,
    queues_of,
    total,
    unused_retry_queues,
)
from domain_events.transport.publisher import Publisher
from domain_events.transport.script import Steps
from domain_events.transport.session import Another, Session
from domain_events.transport.topology import retry_delays, retry_queue

LOOKING = 120.0
"""Seconds for one receiver, at most."""

STATISTICS = 12.0
"""Seconds until the plugin's counts are true of this moment: twice RabbitMQ's collect_statistics_interval, and some."""


def plan(brokers: Sequence[Broker], registrations: Sequence[Registration], listing: Listing | None) -> list[Difference]:
    """Raises BrokerError."""
    with Session(brokers, "topology") as session:
        found = [_look(session, registration, listing) for registration in registrations]
    return differences(found, listing)


class Changes:
    """Does what `plan` shows. `said` is told about each thing that was done, at once."""

    def __init__(
        self,
        brokers: Sequence[Broker],
        management: Management | None,
        said: Callable[[str], None],
    ) -> None:
        """`management`: None when the plugin does not answer. Raises ManagementUnavailable."""
        self._brokers = brokers
        self._management = management
        self._listing = management.list() if management is not None else None
        self._said = said
        self._emptied: list[str] = []

    def apply(self, registration: Registration) -> None:
        """For one receiver. Raises BrokerError; what was done until then stays done."""
        listing = self._listing
        with Session(self._brokers, "topology") as session:
            found = _look(session, registration, listing)
            self._do(session, lambda tools: applying.declare_missing(tools, found))
            self._do(session, lambda tools: applying.migrate(tools, found, listing))
            self._do(session, lambda tools: applying.bind(tools, found, listing))
            if listing is not None:
                self._emptied += unused_retry_queues(found, listing)

    def rename(self, old: str, new: Registration) -> None:
        """Everything of the receiver `old`, which the code has not got any more, becomes that of `new`."""
        listing = self._listing
        with Session(self._brokers, "topology") as session:
            keys = [b.key for b in listing.bindings if (b.exchange, b.queue) == (new.exchange, old)] if listing else []
            if listing is not None:
                delays = listed_delays(old, listing.queues)
            else:
                delays = session.run(lambda another: _existing_delays(another, old), LOOKING)
            self._do(session, lambda tools: applying.rename(tools, old, new, delays, keys))
            self._emptied += [retry_queue(old, delay).name for delay in delays]

    def prune(self, name: str) -> None:
        """Delete the queues of a receiver that the code has not got any more, if nothing is in them."""
        if self._management is None:
            raise BrokerError(f"cannot prune {name}: only the management plugin can tell that its queues are empty")
        listing = self._management.list()
        if total(queues_of(name, listing)) is None:
            time.sleep(STATISTICS)  # a queue that is young has not been counted yet
            listing = self._management.list()
        queues = queues_of(name, listing)
        if not queues:
            raise NoSuchReceiver(f"there is no queue of a receiver {name!r}")
        consumers = sum(queue.consumers or 0 for queue in queues)
        if consumers:
            raise BrokerError(f"receiver {name!r} is running ({consumers} consumers); nothing was deleted")
        events = total(queues)
        if events is None or events:
            raise BrokerError(
                f"the queues of {name!r} hold {'an unknown number of' if events is None else events} events; move them "
                f"with --rename {name}=NEW, or purge them: rabbitmqctl purge_queue"
            )
        bindings = [binding for binding in listing.bindings if binding.queue == name]
        with Session(self._brokers, "topology") as session:
            self._do(session, lambda tools: applying.unbind(tools, bindings))
        self._emptied += [queue.name for queue in queues]

    def finish(self) -> None:
        """Delete what is empty and not needed any more. Nothing is deleted that may hold an event."""
        names, self._emptied = self._emptied, []
        if not names:
            return
        if self._management is None:
            self._said(f"left {', '.join(names)}: only the management plugin can tell that they are empty")
            return
        time.sleep(STATISTICS)
        queues = self._management.list().queues
        empty = [name for name in names if name in queues and queues[name].messages == 0]
        with Session(self._brokers, "topology") as session:
            self._do(session, lambda tools: applying.delete_empty(tools, empty))
        for name in names:
            if name in queues and name not in empty:
                self._said(f"left queue {name}: it holds {queues[name].messages} events")

    def _do(self, session: Session, steps: Callable[[Tools], Steps[list[str]]]) -> None:
        # A publisher of its own for each: it ends with what it was needed for.
        publisher = Publisher(session.io, self._brokers, name="topology")
        try:
            # However many events are to be moved.
            done = session.run(lambda another: steps(Tools(session.io, publisher, another)), None)
        finally:
            session.io.call(lambda: publisher.close(lambda: None))
        for line in done:
            self._said(line)


def by_brokers(
    registrations: Sequence[Registration], brokers: Callable[[Registration], Brokers | None]
) -> Mapping[Brokers, list[Registration]]:
    """Those that are not offline."""
    groups: dict[Brokers, list[Registration]] = {}
    for registration in registrations:
        where = brokers(registration)
        if where is not None:
            groups.setdefault(where, []).append(registration)
    return groups


def _look(session: Session, registration: Registration, listing: Listing | None) -> FoundReceiver:
    return session.run(lambda another: look(another, registration, listing), LOOKING)


def _existing_delays(another: Another, receiver: str) -> Steps[list[int]]:
    found = []
    for delay in retry_delays():
        counts = yield from count(another, retry_queue(receiver, delay).name)
        found += [] if counts is None else [delay]
    return found
