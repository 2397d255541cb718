"""How many events wait in the queues of each receiver: asked of the broker, and only while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from domain_events.errors import DomainEventError
from domain_events.registration import Registration
from domain_events.settings import Brokers, configured_brokers
from domain_events.transport.counting import count_ready
from domain_events.transport.migration.looking import listed_delays
from domain_events.transport.migration.management import Listing, management_of
from domain_events.transport.migration.work import by_brokers
from domain_events.transport.session import Session
from domain_events.transport.topology import dead_letter_queue_name, retry_queue

logger = logging.getLogger(__name__)

_TIMEOUT = 5.0  # seconds for one look at one broker
_TIMEOUT_EACH = 0.02  # and for each queue
_REST = 10.0  # seconds for which a broker that did not answer is left alone
_IDLE = 60.0  # seconds without a look, after which we leave the broker
_MISSING = 60.0  # seconds for which a queue that is not there is not asked for: the broker logs each such question

Delays = Mapping[str, Sequence[int]]
"""Of the retry queues of each receiver, as far as they are known. Milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Of one receiver. None: not known; without the management plugin, events in hand do not count."""

    queue: int | None = None
    retry: int | None = None
    dead: int | None = None
    problem: str = ""


def delays_of(inspection: Mapping[str, Any]) -> Delays:
    """Of what the master has inspected."""
    return {each["name"]: each["retry_delays"] for each in inspection["receivers"]}


class Depths:
    """All questions go out from one thread, which nobody waits for longer than he likes."""

    def __init__(self, registrations: Sequence[Registration], management: str | None) -> None:
        """`management`: URL of the management plugin, to be asked instead."""
        groups = by_brokers(registrations, lambda each: configured_brokers(each.connection_settings, "consumer"))
        self._sources = [_Source(brokers, group, management) for brokers, group in groups.items()]
        self._thread = ThreadPoolExecutor(1, "de-depths")
        self._looking: asyncio.Future[None] | None = None
        self._looked_at = 0.0
        self._leaving: asyncio.TimerHandle | None = None
        self.latest: Mapping[str, Depth] = {}

    async def look(self, delays: Delays, *, max_age: float, patience: float) -> Mapping[str, Depth]:
        """At most `max_age` seconds old, if the broker tells within `patience` seconds; else what there is."""
        if time.monotonic() - self._looked_at >= max_age and self._looking is None and self._sources:
            loop = asyncio.get_running_loop()
            self._looking = asyncio.ensure_future(loop.run_in_executor(self._thread, self._look, delays))
            self._looking.add_done_callback(self._looked)
            if self._leaving is not None:
                self._leaving.cancel()
            self._leaving = loop.call_later(_IDLE, self._leave)
        if self._looking is not None and patience > 0:
            await asyncio.wait([self._looking], timeout=patience)
        return self.latest

    def close(self) -> None:
        """Waits for nobody: the process ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _looked(self, looking: asyncio.Future[None]) -> None:
        self._looking = None
        self._looked_at = time.monotonic()
        if looking.exception() is not None:
            self.latest = {}  # rather than what was true once
            logger.error("the depths of queues are not known", exc_info=looking.exception())

    def _leave(self) -> None:
        self._thread.submit(self._leave_all)

    # In the thread

    def _leave_all(self) -> None:
        for source in self._sources:
            source.leave()

    def _look(self, delays: Delays) -> None:
        found: dict[str, Depth] = {}
        for source in self._sources:
            found.update(source.look(delays))
        self.latest = found


class _Source:
    """One broker, and the receivers that consume from it."""

    def __init__(self, brokers: Brokers, registrations: Sequence[Registration], management: str | None) -> None:
        self._brokers = brokers
        self._registrations = registrations
        self._management = management
        self._session: Session | None = None
        self._not_before = 0.0
        self._problem = ""
        self._missing: dict[str, float] = {}  # until when

    def look(self, delays: Delays) -> dict[str, Depth]:
        if time.monotonic() >= self._not_before:
            try:
                self._problem = ""
                if self._management is not None:
                    return self._listed(management_of(self._brokers[0], self._management).list())
                return self._counted(delays)
            except DomainEventError as error:
                self._problem = str(error)
                self._not_before = time.monotonic() + _REST
                self.leave()
        return {each.name: Depth(problem=self._problem) for each in self._registrations}

    def leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _counted(self, delays: Delays) -> dict[str, Depth]:
        if self._session is None:
            self._session = Session(self._brokers, "depths")
        now = time.monotonic()
        self._missing = {name: until for name, until in self._missing.items() if now < until}
        queues = {each.name: _queues_of(each.name, delays) for each in self._registrations}
        names = [name for mine in queues.values() for name in mine.all if name not in self._missing]
        timeout = _TIMEOUT + len(names) * _TIMEOUT_EACH
        counts = self._session.run(lambda another: count_ready(another, names), timeout)
        self._missing.update(dict.fromkeys(counts.missing, now + _MISSING))
        return {
            name: Depth(
                queue=counts.ready.get(mine.main),
                retry=sum(counts.ready.get(each, 0) for each in mine.retries),
                dead=counts.ready.get(mine.dead),
            )
            for name, mine in queues.items()
        }

    def _listed(self, listing: Listing) -> dict[str, Depth]:
        def messages(*names: str) -> int | None:
            counts = [listing.queues[name].messages for name in names if name in listing.queues]
            known = [each for each in counts if each is not None]
            return sum(known) if known else None

        return {
            name: Depth(
                queue=messages(name),
                retry=messages(*(retry_queue(name, delay).name for delay in listed_delays(name, listing.queues))) or 0,
                dead=messages(dead_letter_queue_name(name)),
            )
            for name in (registration.name for registration in self._registrations)
        }


class _Queues(NamedTuple):
    main: str
    dead: str
    retries: Sequence[str]

    @property
    def all(self) -> Sequence[str]:
        return [self.main, self.dead, *self.retries]


def _queues_of(receiver: str, delays: Delays) -> _Queues:
    retries = [retry_queue(receiver, delay).name for delay in delays.get(receiver, ())]
    return _Queues(receiver, dead_letter_queue_name(receiver), retries)
