"""The numbers of a supervisor, as the control socket tells them: the shape of the answer, made from seats. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypedDict

from domain_events.measuring import LATENESS, SECONDS
from domain_events.supervisor import reporting
from domain_events.supervisor.causes import USUAL
from domain_events.supervisor.notes import InHand
from domain_events.supervisor.slots import State
from domain_events.supervisor.tallies import Counters, Histogram


class HistogramReport(TypedDict):
    bounds: list[float]  # of the buckets, in seconds, ascending: each holds what is at most that
    counts: list[int]  # in each bucket alone; the last one, beyond the bounds, holds the rest
    sum: float  # seconds


class ProcessMetrics(TypedDict):
    """Of one slot. Null when there is no process."""

    slot: str  # as printer#0
    consuming: bool
    started_at: float | None  # Unix seconds
    silent: float | None  # seconds since the last sign of life; null before the first one
    rss: int | None  # bytes; also of the process that it replaces, while both are there


class ReceiverMetrics(TypedDict):
    """Counts are over all of its processes since the master began, also those that are gone: they only grow."""

    name: str
    state: str | None  # as in the status; null: it is no receiver any more
    delivered: int  # handed to the handler
    handled: int
    retried: int
    dead_lettered: int
    dropped: int  # of those, because the receiver wants no dead letters
    failed: dict[str, int]  # by error type
    sent: int  # by its handlers, and confirmed
    send_failed: int
    seconds: HistogramReport  # of handlers, also of those that failed
    lateness: HistogramReport  # from the event's timestamp to its handler
    in_flight: int
    oldest_in_flight: float  # seconds that the longest has been in hand; 0 when nothing is
    restarts: dict[str, int]  # by cause, see `causes`
    processes: list[ProcessMetrics]


class MasterMetrics(TypedDict):
    version: str
    state: str  # as in the status
    started_at: float  # Unix seconds
    rss: int | None  # bytes


class MetricsReport(TypedDict):
    master: MasterMetrics
    receivers: list[ReceiverMetrics]
    log_records_dropped: Mapping[str, int]  # by slot, and by `master` for those of its own


class Record(Protocol):
    @property
    def counters(self) -> Counters: ...
    @property
    def in_hand(self) -> list[InHand]: ...
    @property
    def last_beat(self) -> float | None: ...


class Seat(reporting.Seat, Protocol):
    """As `seats.Seat`, which documents the fields."""

    @property
    def record(self) -> Record: ...


class Past(Protocol):
    """As `crew.Past`."""

    @property
    def counters(self) -> Counters: ...
    @property
    def restarts(self) -> Mapping[str, int]: ...


def metrics_report(
    seats: Iterable[Seat],
    *,
    past: Mapping[str, Past],
    receivers: Sequence[str],
    master: MasterMetrics,
    log_records_dropped: Mapping[str, int],
    now: float,
    time: float,
) -> MetricsReport:
    """`past`: by receiver, also of those that are none any more. `receivers`: those of now, in order. `now` is of the
    clock of `Seat.started_at`, `time` the same moment in Unix seconds."""
    by_receiver: dict[str, list[Seat]] = {name: [] for name in receivers}
    for seat in seats:
        by_receiver.setdefault(seat.slot.receiver, []).append(seat)
    known = set(by_receiver)
    for name in past:
        by_receiver.setdefault(name, [])
    return {
        "master": master,
        "receivers": [
            _receiver(
                name, reporting.receiver_state(mine) if name in known else None, mine, past.get(name), now, time - now
            )
            for name, mine in by_receiver.items()
        ],
        "log_records_dropped": log_records_dropped,
    }


def _receiver(
    name: str, state: str | None, seats: Sequence[Seat], past: Past | None, now: float, epoch: float
) -> ReceiverMetrics:
    # Not `Seat.counters`: what one seat has of another would be counted twice.
    counters = sum((seat.record.counters for seat in seats), Counters() if past is None else past.counters)
    since = [event.since for seat in seats if seat.slot.pid is not None for event in seat.record.in_hand]
    return {
        "name": name,
        "state": state,
        "delivered": counters.delivered,
        "handled": counters.handled,
        "retried": counters.retried,
        "dead_lettered": counters.dead_lettered,
        "dropped": counters.dropped,
        "failed": dict(counters.failed),
        "sent": counters.sent,
        "send_failed": counters.send_failed,
        "seconds": _histogram(SECONDS, counters.seconds),
        "lateness": _histogram(LATENESS, counters.lateness),
        "in_flight": len(since),
        "oldest_in_flight": max(0.0, now - min(since, default=now)),
        "restarts": {**dict.fromkeys(USUAL, 0), **({} if past is None else past.restarts)},
        "processes": list(_processes(seats, now, epoch)),
    }


def _histogram(bounds: Sequence[float], histogram: Histogram) -> HistogramReport:
    return {"bounds": list(bounds), "counts": list(histogram.counts), "sum": histogram.sum}


def _processes(seats: Sequence[Seat], now: float, epoch: float) -> Iterator[ProcessMetrics]:
    """One for each place: where one takes over from another, both have the same name."""
    places: dict[str, list[Seat]] = {}
    for seat in seats:
        places.setdefault(seat.slot.name, []).append(seat)
    for name, place in places.items():
        seat = (reporting.answering(place) or place)[-1]
        lives = seat.slot.pid is not None
        last_beat = seat.record.last_beat if lives else None
        memory = [rss for each in place if (rss := each.rss) is not None]
        yield {
            "slot": name,
            "consuming": seat.slot.state is State.CONSUMING,
            "started_at": epoch + seat.started_at if lives and seat.started_at is not None else None,
            "silent": None if last_beat is None else max(0.0, now - last_beat),
            "rss": sum(memory) if memory else None,
        }
