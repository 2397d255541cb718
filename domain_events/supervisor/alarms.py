"""Which receivers others are told of: one that has failed, and one that works again. Pure.

A receiver is told of when a process of it has failed, and then not again until all of its processes have consumed for
`stable_after`: it has recovered, and that is told of as well. A process that died with an alert in hand fails in
silence: else that alert would lead to another one, which the next process would die of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from domain_events.alerts import receiver_failed, receiver_recovered
from domain_events.events import DomainEvent
from domain_events.supervisor.slots import Rules, Slot, State, is_stable


class Seat(Protocol):
    """As `seats.Seat`, which documents the fields."""

    @property
    def slot(self) -> Slot: ...
    @property
    def stays(self) -> bool: ...
    @property
    def had_alert(self) -> bool: ...


class Alarms:
    """Remembers who was told of."""

    def __init__(self, rules: Rules, master: int) -> None:
        """`master`: its pid."""
        self._rules = rules
        self._master = master
        self._told: dict[str, str] = {}  # receivers, and the slot that had failed

    def look(self, seats: Iterable[Seat], now: float) -> list[DomainEvent]:
        """What is to be told now. To be asked in each turn of the loop, before anything is forked."""
        seats = [seat for seat in seats if seat.stays]
        return [*self._failed(seats), *self._recovered(seats, now)]

    def due(self, seats: Iterable[Seat], now: float) -> float | None:
        """When somebody may have recovered without another sign of it."""
        times = [
            seat.slot.consuming_since + self._rules.stable_after - seat.slot.consumed
            for seat in seats
            if seat.slot.receiver in self._told and seat.slot.consuming_since is not None
        ]
        return min((at for at in times if at > now), default=None)

    def _failed(self, seats: Sequence[Seat]) -> Iterator[DomainEvent]:
        for seat in seats:
            slot = seat.slot
            if slot.state is State.FAILED and slot.receiver not in self._told and not seat.had_alert:
                self._told[slot.receiver] = slot.name
                yield receiver_failed(
                    slot.receiver, slot=slot.name, reason=slot.reason, restarts=slot.restarts, pid=self._master
                )

    def _recovered(self, seats: Sequence[Seat], now: float) -> Iterator[DomainEvent]:
        for receiver, name in list(self._told.items()):
            slots = [seat.slot for seat in seats if seat.slot.receiver == receiver]
            if all(slot.state is State.CONSUMING and is_stable(slot, now, self._rules) for slot in slots):
                del self._told[receiver]
                if slots:  # else it is gone
                    restarts = sum(slot.restarts for slot in slots)
                    yield receiver_recovered(receiver, slot=name, restarts=restarts, pid=self._master)
