"""What a master tells about its receivers, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from domain_events.metrics import names

if TYPE_CHECKING:
    from domain_events.supervisor.metering import HistogramReport, MetricsReport

Kind: TypeAlias = Literal["queue", "retry", "dead"]


_CounterKey: TypeAlias = Literal["delivered", "handled", "retried", "dead_lettered", "dropped", "sent", "send_failed"]
_HistogramKey: TypeAlias = Literal["seconds", "lateness"]

# With their keys in the report.
_COUNTERS: Final[tuple[tuple[names.Name, _CounterKey], ...]] = (
    (names.DELIVERED, "delivered"),
    (names.HANDLED, "handled"),
    (names.RETRIED, "retried"),
    (names.DEAD_LETTERED, "dead_lettered"),
    (names.DROPPED, "dropped"),
    (names.SENT, "sent"),
    (names.SEND_FAILED, "send_failed"),
)
_HISTOGRAMS: Final[tuple[tuple[names.Name, _HistogramKey], ...]] = (
    (names.HANDLER_SECONDS, "seconds"),
    (names.LAG_SECONDS, "lateness"),
)
_MASTER_STATES: Final = ("starting", "running", "reloading", "draining")
_RECEIVER_STATES: Final = ("starting", "consuming", "backoff", "failed", "draining", "stopped")


class Depth(NamedTuple):
    """So many events are ready in a queue of a receiver. `retry`: in all of its retry queues together."""

    receiver: str
    kind: Kind
    events: int


def exposition(report: MetricsReport, depths: Iterable[Depth] = (), accept: str = "") -> tuple[bytes, str]:
    """The text that Prometheus reads, and its content type.

    `report`: what the master has answered to `protocol.Metrics`. `accept`: the header of the request; OpenMetrics for
    those who ask for it.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(report, depths))
    # Not the header itself: some versions of prometheus_client give parts of it back in the content type.
    wanted = "application/openmetrics-text; version=1.0.0" if "application/openmetrics-text" in accept else ""
    encode, content_type = choose_encoder(wanted)
    return encode(registry), content_type


class _Collector:
    def __init__(self, report: MetricsReport, depths: Iterable[Depth]) -> None:
        self._report = report
        self._depths = depths

    def collect(self) -> Iterator[Metric]:
        yield from _of_master(self._report)
        yield from _of_events(self._report)
        yield from _of_receivers(self._report)
        yield from _of_children(self._report)
        depth = GaugeMetricFamily("domain_events_queue_depth", "Events ready in queues.", labels=["receiver", "kind"])
        for receiver, kind, events in self._depths:
            depth.add_metric([receiver, kind], events)
        yield depth


def _of_master(report: MetricsReport) -> Iterator[Metric]:
    master = report["master"]
    yield InfoMetricFamily(
        "domain_events_master", "The supervisor that was asked.", value={"version": master["version"]}
    )
    yield GaugeMetricFamily(
        "domain_events_master_start_time_seconds", "Unix time of the master's start.", value=master["started_at"]
    )
    state = GaugeMetricFamily("domain_events_master_state", "1 for the state that the master is in.", labels=["state"])
    for each in _MASTER_STATES:
        state.add_metric([each], each == master["state"])
    yield state
    if master["rss"] is not None:
        yield GaugeMetricFamily(
            "domain_events_master_resident_memory_bytes", "Memory of the master.", value=master["rss"]
        )
    dropped = CounterMetricFamily(
        "domain_events_log_records_dropped", "Log records that nobody will read.", labels=["slot"]
    )
    for slot, n in report["log_records_dropped"].items():
        dropped.add_metric([slot], n)
    yield dropped


def _of_events(report: MetricsReport) -> Iterator[Metric]:
    receivers = report["receivers"]
    for name, key in _COUNTERS:
        counter = CounterMetricFamily(*name, labels=["receiver"])
        for receiver in receivers:
            counter.add_metric([receiver["name"]], receiver[key])
        yield counter
    failed = CounterMetricFamily(*names.FAILED, labels=["receiver", "error_type"])
    for receiver in receivers:
        for error_type, n in receiver["failed"].items():
            failed.add_metric([receiver["name"], error_type], n)
    yield failed
    for name, histogram_key in _HISTOGRAMS:
        histogram = HistogramMetricFamily(*name, labels=["receiver"])
        for receiver in receivers:
            counted = receiver[histogram_key]
            histogram.add_metric([receiver["name"]], _buckets(counted), counted["sum"])
        yield histogram


def _buckets(histogram: HistogramReport) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, histogram["bounds"]), "+Inf"]
    return list(zip(bounds, accumulate(histogram["counts"]), strict=True))


def _of_receivers(report: MetricsReport) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(*names.IN_FLIGHT, labels=["receiver"])
    oldest = GaugeMetricFamily(
        "domain_events_oldest_in_flight_seconds",
        "How long the event that is longest in hand has been there.",
        labels=["receiver"],
    )
    state = GaugeMetricFamily(
        "domain_events_receiver_state", "1 for the state that the receiver is in.", labels=["receiver", "state"]
    )
    restarts = CounterMetricFamily(
        "domain_events_child_restarts", "Children that have ended and were replaced.", labels=["receiver", "cause"]
    )
    for receiver in report["receivers"]:
        name = receiver["name"]
        for cause, n in receiver["restarts"].items():
            restarts.add_metric([name, cause], n)
        in_flight.add_metric([name], receiver["in_flight"])
        oldest.add_metric([name], receiver["oldest_in_flight"])
        if receiver["state"] is not None:
            for each in _RECEIVER_STATES:
                state.add_metric([name, each], each == receiver["state"])
    yield from (in_flight, oldest, state, restarts)


def _of_children(report: MetricsReport) -> Iterator[Metric]:
    labels = ["receiver", "slot"]
    consuming = GaugeMetricFamily("domain_events_child_consuming", "1 when the child consumes, else 0.", labels=labels)
    started = GaugeMetricFamily(
        "domain_events_child_start_time_seconds", "Unix time at which the child was forked.", labels=labels
    )
    silent = GaugeMetricFamily(
        "domain_events_child_silent_seconds", "Since the last sign of life of the child.", labels=labels
    )
    rss = GaugeMetricFamily("domain_events_child_resident_memory_bytes", "Memory of the child.", labels=labels)
    for receiver in report["receivers"]:
        for child in receiver["processes"]:
            who = [receiver["name"], child["slot"]]
            consuming.add_metric(who, child["consuming"])
            for family, value in ((started, child["started_at"]), (silent, child["silent"]), (rss, child["rss"])):
                if value is not None:
                    family.add_metric(who, value)
    yield from (consuming, started, silent, rss)
