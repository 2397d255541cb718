"""The observer that notes down for the master what a consumer does."""

from __future__ import annotations

from collections.abc import Callable

from domain_events.events import DomainEvent
from domain_events.measuring import error_type
from domain_events.observers import NullObserver
from domain_events.supervisor.blame import Blame
from domain_events.supervisor.notes import Record
from domain_events.supervisor.wear import Wear
from domain_events.transport.topology import retry_delay


class Watching(NullObserver):
    """Events into the shared record, connections to the two callbacks. Called from all threads that handle events, or
    send some."""

    def __init__(
        self,
        record: Record,
        blame: Blame,
        wear: Wear,
        on_consuming: Callable[[], None],
        on_waiting: Callable[[str], None],
        on_delay: Callable[[int], None] = lambda delay: None,
    ) -> None:
        """`on_delay`: told about each new delay of a retry, in milliseconds, as the queue has it in its name."""
        self._record = record
        self._blame = blame
        self._event_done = wear.event_done if wear.minds_events else None
        self._on_consuming = on_consuming
        self._on_waiting = on_waiting
        self._on_delay = on_delay
        self._delays: set[int] = set()
        self._cells: dict[int, int] = {}  # of events in hand, by their identity
        self._tally = record.tally

    def consuming(self) -> None:
        self._on_consuming()

    def disconnected(self, reason: str) -> None:
        self._on_waiting(reason)

    def reading(self, event_id: str) -> Callable[[], object]:
        """It is in hand from now on, until the result is called."""
        cell = self._record.begin(event_id)
        return lambda: self._record.end(cell)

    def started(self, receiver: str, event: DomainEvent) -> None:
        self._cells[id(event)] = self._record.begin(event.uuid_string)
        self._tally.started(event.timestamp)

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._end(event)
        self._tally.handled(seconds)

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        was_called = event is not None and id(event) in self._cells
        self._tally.failed(seconds if was_called else None, error_type(error))

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._end(event)
        self._tally.retried()
        milliseconds = retry_delay(delay)
        if milliseconds and milliseconds not in self._delays:
            self._delays.add(milliseconds)
            self._on_delay(milliseconds)

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._end(event)
        self._tally.dead_lettered(dropped=dropped)

    def sent(self, event: DomainEvent, seconds: float) -> None:
        self._tally.sent()

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        self._tally.send_failed()

    def _end(self, event: DomainEvent | None) -> None:
        if event is not None:  # else its bytes were no event
            cell = self._cells.pop(id(event), None)
            if cell is not None:  # else it is condemned, and was never begun
                self._record.end(cell)
                self._blame.forgive(event.uuid_string)
        if self._event_done is not None:
            self._event_done()
