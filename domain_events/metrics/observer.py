"""The numbers of a process that runs under no supervisor: one that only sends, or consumes by itself."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from domain_events import measuring
from domain_events.events import DomainEvent
from domain_events.measuring import LATENESS, MOST_ERROR_TYPES, OTHER, error_type, lateness
from domain_events.metrics import names
from domain_events.observers import NullObserver

_NOBODY: Final = ""
"""The receiver of what is sent: Prometheus takes an empty label for none."""


class Metrics(NullObserver):
    """Counts what happens in this process: `observe(Metrics())`. The names are those that a supervisor tells.

    Children of a supervisor do not need it: their master counts already, and asks no other process.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """One for each registry. Raises ValueError for a second one.

        `registry`: None in the multiprocess mode of prometheus_client, whose files are read by a registry of their own.
        """
        self._delivered = _counter(names.DELIVERED, registry)
        self._handled = _counter(names.HANDLED, registry)
        self._retried = _counter(names.RETRIED, registry)
        self._dead_lettered = _counter(names.DEAD_LETTERED, registry)
        self._dropped = _counter(names.DROPPED, registry)
        self._failed = _counter(names.FAILED, registry, "error_type")
        self._sent = _counter(names.SENT, registry).labels(_NOBODY)
        self._send_failed = _counter(names.SEND_FAILED, registry).labels(_NOBODY)
        self._seconds = Histogram(*names.HANDLER_SECONDS, ["receiver"], registry=registry, buckets=measuring.SECONDS)
        self._lateness = Histogram(*names.LAG_SECONDS, ["receiver"], registry=registry, buckets=LATENESS)
        self._in_flight = Gauge(*names.IN_FLIGHT, ["receiver"], registry=registry, multiprocess_mode="livesum")
        self._in_hand: set[int] = set()  # events, by their identity
        self._error_types: defaultdict[str, set[str]] = defaultdict(set)  # by receiver
        self._naming = threading.Lock()

    def started(self, receiver: str, event: DomainEvent) -> None:
        self._in_hand.add(id(event))
        self._in_flight.labels(receiver).inc()
        self._delivered.labels(receiver).inc()
        self._lateness.labels(receiver).observe(lateness(event.timestamp, time.time()))

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._seconds.labels(receiver).observe(seconds)
        self._handled.labels(receiver).inc()
        self._end(receiver, event)

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        if id(event) in self._in_hand:  # else no handler was called
            self._seconds.labels(receiver).observe(seconds)
        self._failed.labels(receiver, self._name_of(receiver, error)).inc()

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._retried.labels(receiver).inc()
        self._end(receiver, event)

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._dead_lettered.labels(receiver).inc()
        if dropped:
            self._dropped.labels(receiver).inc()
        self._end(receiver, event)

    def sent(self, event: DomainEvent, seconds: float) -> None:
        self._sent.inc()

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        self._send_failed.inc()

    def _end(self, receiver: str, event: DomainEvent | None) -> None:
        if id(event) in self._in_hand:
            self._in_hand.discard(id(event))
            self._in_flight.labels(receiver).dec()

    def _name_of(self, receiver: str, error: BaseException | None) -> str:
        """A label; there are not more of them than a supervisor would give."""
        name = error_type(error)
        with self._naming:
            known = self._error_types[receiver]
            if name not in known and len(known) >= MOST_ERROR_TYPES:
                return OTHER
            if name != OTHER:
                known.add(name)
            return name


def _counter(name: names.Name, registry: CollectorRegistry | None, *labels: str) -> Counter:
    return Counter(*name, ["receiver", *labels], registry=registry)
