"""The observer that notes down for the master what a consumer does."""

from __future__ import annotations

from collections.abc import Callable

from domain_events.events import DomainEvent
from domain_events.observers import NullObserver
from domain_events.supervisor.shm import Record


class Watching(NullObserver):
    """Events into the shared record, connections to the two callbacks."""

    def __init__(self, record: Record, on_consuming: Callable[[], None], on_waiting: Callable[[str], None]) -> None:
        self._record = record
        self._on_consuming = on_consuming
        self._on_waiting = on_waiting

    def consuming(self) -> None:
        self._on_consuming()

    def disconnected(self, reason: str) -> None:
        self._on_waiting(reason)

    def started(self, receiver: str, event: DomainEvent) -> None:
        self._record.begin(event.uuid_string)

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._record.end()
        self._record.count_handled()

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._record.end()
        self._record.count_retried()

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._record.end()
        self._record.count_dead_lettered()
