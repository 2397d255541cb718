"""What `domain-events status --json` shows, made from the seats of a master. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, TypeAlias, TypedDict, TypeVar

from domain_events.supervisor.exits import Ending, signal_name
from domain_events.supervisor.slots import State

MasterState: TypeAlias = Literal["starting", "running", "reloading", "draining"]

WORST_FIRST = ("failed", "backoff", "draining", "starting", "stopped", "consuming")
"""The states of a receiver, as they need a person."""


class MasterReport(TypedDict):
    pid: int
    state: MasterState
    uptime: float  # seconds


class ProcessReport(TypedDict):
    """`pid`, `uptime`, `in_flight` and `rss` are null when there is no process."""

    slot: str  # as printer#0
    pid: int | None
    state: str
    restarts: int  # crashes and boot failures, ever
    uptime: float | None  # seconds since the fork
    handled: int  # this and the next two: over all processes of this slot
    retried: int
    dead_lettered: int
    in_flight: str | None  # the id of the event that is longest in hand
    rss: int | None  # bytes


class LastExitReport(TypedDict):
    """One of `code` and `signal` is null, both when somebody else has reaped the process."""

    code: int | None
    signal: str | None  # as SIGKILL
    at: float  # Unix seconds
    in_flight: str | None


class ReceiverReport(TypedDict):
    name: str
    state: str
    processes: list[ProcessReport]
    last_exit: LastExitReport | None


class StatusReport(TypedDict):
    master: MasterReport
    receivers: list[ReceiverReport]


class LastExit(Protocol):
    @property
    def ending(self) -> Ending: ...
    @property
    def at(self) -> float: ...
    @property
    def in_flight(self) -> str | None: ...


class Slot(Protocol):
    @property
    def receiver(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def last_exit(self) -> LastExit | None: ...


class Counters(Protocol):
    @property
    def handled(self) -> int: ...
    @property
    def retried(self) -> int: ...
    @property
    def dead_lettered(self) -> int: ...


class Seat(Protocol):
    """As `seats.Seat`, which documents the fields."""

    @property
    def slot(self) -> Slot: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def started_at(self) -> float | None: ...
    @property
    def in_flight(self) -> str | None: ...
    @property
    def rss(self) -> int | None: ...
    @property
    def is_leaving(self) -> bool: ...
    @property
    def is_candidate(self) -> bool: ...


AnySeat = TypeVar("AnySeat", bound=Seat)


def status_report(
    seats: Iterable[Seat],
    *,
    receivers: Sequence[str],
    pid: int,
    state: MasterState,
    uptime: float,
    now: float,
) -> StatusReport:
    """`receivers` come in their order, also without a seat; others that still have one come after them. `pid`, `state`
    and `uptime` are those of the master; `now` is of the clock of `Seat.started_at`."""
    by_receiver: dict[str, list[Seat]] = {name: [] for name in receivers}
    for seat in seats:
        by_receiver.setdefault(seat.slot.receiver, []).append(seat)
    return {
        "master": {"pid": pid, "state": state, "uptime": _seconds(uptime)},
        "receivers": [
            {
                "name": name,
                "state": receiver_state(mine),
                "processes": [_process(seat, now) for seat in mine],
                "last_exit": _last_exit(mine),
            }
            for name, mine in by_receiver.items()
        ],
    }


def receiver_state(seats: Sequence[Seat]) -> str:
    """The worst of the processes that there should be: it consumes when all of them do.

    Where one takes over from another, the one that answers for their place counts: the old one until the new one has
    shown itself, then the new one. One that leaves for good counts only when there is nobody else.
    """
    places: dict[str, list[Seat]] = {}
    for seat in seats:
        places.setdefault(seat.slot.name, []).append(seat)
    found = [seat for place in places.values() for seat in answering(place)]
    shown = {seat.slot.state.shown for seat in found or seats}
    return next((state for state in WORST_FIRST if state in shown), State.STOPPED.shown)


def answering(place: Sequence[AnySeat]) -> list[AnySeat]:
    """Of the seats of one place: who fills it. Nobody does where all leave for good."""
    staying = [seat for seat in place if not seat.is_leaving]
    return [seat for seat in staying if not seat.is_candidate] or staying


def _process(seat: Seat, now: float) -> ProcessReport:
    lives = seat.slot.pid is not None
    counters = seat.counters
    return {
        "slot": seat.slot.name,
        "pid": seat.slot.pid,
        "state": seat.slot.state.shown,
        "restarts": seat.slot.restarts,
        "uptime": _seconds(now - seat.started_at) if lives and seat.started_at is not None else None,
        "handled": counters.handled,
        "retried": counters.retried,
        "dead_lettered": counters.dead_lettered,
        # The notes of a dead one still name what it had in hand: that is its last exit's business.
        "in_flight": seat.in_flight if lives else None,
        "rss": seat.rss if lives else None,
    }


def _last_exit(seats: Iterable[Seat]) -> LastExitReport | None:
    exits = [seat.slot.last_exit for seat in seats if seat.slot.last_exit is not None]
    if not exits:
        return None
    last = max(exits, key=lambda exit_: exit_.at)
    number = last.ending.signal
    return {
        "code": last.ending.code,
        "signal": None if number is None else signal_name(number),
        "at": last.at,
        "in_flight": last.in_flight,
    }


def _seconds(value: float) -> float:
    return round(max(0.0, value), 3)
