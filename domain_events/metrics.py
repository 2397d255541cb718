"""The numbers of receivers for Prometheus. Needs prometheus_client: the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

try:
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
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "prometheus_client is not installed: install it, or domain-events with the extra 'metrics'", name=missing.name
    ) from missing

if TYPE_CHECKING:
    from domain_events.supervisor.metering import HistogramReport, MetricsReport

Kind: TypeAlias = Literal["queue", "retry", "dead"]


_CounterKey: TypeAlias = Literal["delivered", "handled", "retried", "dead_lettered", "dropped", "sent", "send_failed"]
_HistogramKey: TypeAlias = Literal["seconds", "lateness"]

COUNTERS: Final[tuple[tuple[str, _CounterKey, str], ...]] = (
    ("domain_events_delivered", "delivered", "Events handed to the handler."),
    ("domain_events_handled", "handled", "Events whose handler returned."),
    ("domain_events_retried", "retried", "Events that were put aside to come again."),
    ("domain_events_dead_lettered", "dead_lettered", "Events that were given up."),
    ("domain_events_dropped", "dropped", "Of those: given up by a receiver without dead letters, and gone."),
    ("domain_events_sent", "sent", "Events sent by handlers of the receiver, and confirmed."),
    ("domain_events_send_failed", "send_failed", "Events that handlers of the receiver could not send."),
)
"""Name without `_total`, key in the report, and what it says."""

FAILED: Final = "Events that were not handled, each time, by the type of the error."

HISTOGRAMS: Final[tuple[tuple[str, _HistogramKey, str], ...]] = (
    ("domain_events_handler_seconds", "seconds", "How long handlers took, also those that failed."),
    ("domain_events_lag_seconds", "lateness", "From the event's timestamp to the call of its handler."),
)

MASTER_STATES: Final = ("starting", "running", "reloading", "draining")
RECEIVER_STATES: Final = ("starting", "consuming", "backoff", "failed", "draining", "stopped")


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
    for each in MASTER_STATES:
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
    for name, key, about in COUNTERS:
        counter = CounterMetricFamily(name, about, labels=["receiver"])
        for receiver in receivers:
            counter.add_metric([receiver["name"]], receiver[key])
        yield counter
    failed = CounterMetricFamily("domain_events_failed", FAILED, labels=["receiver", "error_type"])
    for receiver in receivers:
        for error_type, n in receiver["failed"].items():
            failed.add_metric([receiver["name"], error_type], n)
    yield failed
    for name, histogram_key, about in HISTOGRAMS:
        histogram = HistogramMetricFamily(name, about, labels=["receiver"])
        for receiver in receivers:
            counted = receiver[histogram_key]
            histogram.add_metric([receiver["name"]], _buckets(counted), counted["sum"])
        yield histogram


def _buckets(histogram: HistogramReport) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, histogram["bounds"]), "+Inf"]
    return list(zip(bounds, accumulate(histogram["counts"]), strict=True))


def _of_receivers(report: MetricsReport) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily("domain_events_in_flight", "Events that handlers have in hand.", labels=["receiver"])
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
            for each in RECEIVER_STATES:
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
