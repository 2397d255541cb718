"""What the page shows beyond the status, made from the seats of a master. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from domain_events.supervisor.reporting import LastExitReport, MasterReport, ProcessReport, StatusReport
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.slots import RESTING
from domain_events.version import __version__

MOST_IN_HAND = 20
"""Of one process: coroutines may have thousands."""


class InHandReport(TypedDict):
    id: str
    seconds: float  # since its handler was called


class InspectedProcess(ProcessReport):
    reason: str  # of its state, for people; may be empty
    due_in: float | None  # seconds until it is started again
    in_hand: list[InHandReport]  # oldest first, at most MOST_IN_HAND
    in_hand_count: int


class StacksReport(TypedDict):
    slot: str
    pid: int
    at: float  # Unix seconds
    text: str


class InspectedReceiver(TypedDict):
    name: str
    state: str
    processes: list[InspectedProcess]
    last_exit: LastExitReport | None
    retry_delays: list[int]  # that its retries have had since this master runs, milliseconds
    stacks: list[StacksReport]  # of the receiver that was asked for


class Inspection(TypedDict):
    version: str
    master: MasterReport
    receivers: list[InspectedReceiver]


def inspection(
    status: StatusReport, seats: Iterable[Seat], delays: Mapping[str, Iterable[int]], receiver: str, now: float
) -> Inspection:
    """`status` is of these seats, in their order. `delays`: of retries, by receiver."""
    by_receiver: dict[str, list[Seat]] = {}
    for seat in seats:
        by_receiver.setdefault(seat.slot.receiver, []).append(seat)
    return {
        "version": __version__,
        "master": status["master"],
        "receivers": [
            {
                "name": each["name"],
                "state": each["state"],
                "processes": [
                    _process(process, seat, now)
                    for process, seat in zip(each["processes"], by_receiver.get(each["name"], ()), strict=True)
                ],
                "last_exit": each["last_exit"],
                "retry_delays": list(delays.get(each["name"], ())),
                "stacks": _stacks(by_receiver.get(each["name"], ())) if each["name"] == receiver else [],
            }
            for each in status["receivers"]
        ],
    }


def _process(process: ProcessReport, seat: Seat, now: float) -> InspectedProcess:
    in_hand = seat.in_hand if process["pid"] is not None else ()
    return {
        **process,
        "reason": seat.worn or seat.slot.reason,
        "due_in": round(max(0.0, seat.slot.due - now), 3) if seat.slot.state in RESTING else None,
        "in_hand": [
            {"id": event.id, "seconds": round(max(0.0, now - event.since), 3)} for event in in_hand[:MOST_IN_HAND]
        ],
        "in_hand_count": len(in_hand),
    }


def _stacks(seats: Iterable[Seat]) -> list[StacksReport]:
    dumps = [(seat.slot.name, seat.dump) for seat in seats]
    return [
        {"slot": slot, "pid": dump.pid, "at": dump.at, "text": dump.text} for slot, dump in dumps if dump is not None
    ]
