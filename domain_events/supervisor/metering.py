"""The numbers of a supervisor, as the control socket tells them: the shape of the answer, made from seats. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


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
