"""What Prometheus reads, as its own parser reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from domain_events.measuring import LATENESS, SECONDS
from domain_events.metrics import Depth, exposition
from domain_events.supervisor.causes import Cause
from domain_events.supervisor.metering import HistogramReport, MetricsReport, ReceiverMetrics
from tests.documents import ROOT, table

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8,text/plain;version=0.0.4;q=0.5"
HISTOGRAM: HistogramReport = {"bounds": [0.1, 1.0], "counts": [1, 2, 3], "sum": 4.5}


def receiver(name: str = "printer", **changes: Any) -> ReceiverMetrics:
    return {  # type: ignore[return-value]
        "name": name,
        "state": "consuming",
        "delivered": 11,
        "handled": 7,
        "retried": 2,
        "dead_lettered": 1,
        "dropped": 0,
        "failed": {"ValueError": 3},
        "sent": 5,
        "send_failed": 4,
        "seconds": HISTOGRAM,
        "lateness": HISTOGRAM,
        "in_flight": 1,
        "oldest_in_flight": 0.5,
        "restarts": {"SIGKILL": 1, "reload": 0},
        "processes": [{"slot": f"{name}#0", "consuming": True, "started_at": 1e9, "silent": 0.25, "rss": 1024}],
        **changes,
    }


def report(*receivers: ReceiverMetrics) -> MetricsReport:
    return {
        "master": {"version": "1.2.3", "state": "running", "started_at": 1e9, "rss": 2048},
        "receivers": list(receivers),
        "log_records_dropped": {"printer#0": 6, "master": 0},
    }


def families(text: bytes, parse: Any = parse_plain) -> dict[str, Metric]:
    return {family.name: family for family in parse(text.decode())}


def values(text: bytes, name: str) -> dict[tuple[str, ...], float]:
    """By the values of the labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families(text).values()
        for sample in family.samples
        if sample.name == name
    }


def test_every_number_has_its_name() -> None:
    text, content_type = exposition(report(receiver()), [Depth("printer", "dead", 8)])
    assert content_type.startswith("text/plain; version=0.0.4")
    for name, value in {
        "delivered": 11,
        "handled": 7,
        "retried": 2,
        "dead_lettered": 1,
        "dropped": 0,
        "sent": 5,
        "send_failed": 4,
    }.items():
        assert values(text, f"domain_events_{name}_total") == {("printer",): value}
    assert values(text, "domain_events_failed_total") == {("ValueError", "printer"): 3}
    assert values(text, "domain_events_in_flight") == {("printer",): 1}
    assert values(text, "domain_events_oldest_in_flight_seconds") == {("printer",): 0.5}
    assert values(text, "domain_events_child_restarts_total") == {("SIGKILL", "printer"): 1, ("reload", "printer"): 0}
    assert values(text, "domain_events_queue_depth") == {("dead", "printer"): 8}
    assert values(text, "domain_events_log_records_dropped_total") == {("printer#0",): 6, ("master",): 0}
    for name, value in {
        "consuming": 1,
        "start_time_seconds": 1e9,
        "silent_seconds": 0.25,
        "resident_memory_bytes": 1024,
    }.items():
        assert values(text, f"domain_events_child_{name}") == {("printer", "printer#0"): value}
    assert values(text, "domain_events_master_info") == {("1.2.3",): 1}
    assert values(text, "domain_events_master_start_time_seconds") == {(): 1e9}
    assert values(text, "domain_events_master_resident_memory_bytes") == {(): 2048}


def test_a_histogram_is_cumulated() -> None:
    text, _ = exposition(report(receiver()))
    for name in ("domain_events_handler_seconds", "domain_events_lag_seconds"):
        assert values(text, f"{name}_bucket") == {
            ("0.1", "printer"): 1,
            ("1.0", "printer"): 3,
            ("+Inf", "printer"): 6,
        }
        assert values(text, f"{name}_count") == {("printer",): 6}
        assert values(text, f"{name}_sum") == {("printer",): 4.5}


def test_of_all_states_one_is_true() -> None:
    text, _ = exposition(report(receiver(state="failed")))
    found = values(text, "domain_events_receiver_state")
    assert len(found) == 6
    assert {state for (_, state), value in found.items() if value} == {"failed"}
    assert {state for (state,), value in values(text, "domain_events_master_state").items() if value} == {"running"}


def test_what_is_not_there_is_not_shown() -> None:
    process = {"slot": "printer#0", "consuming": False, "started_at": None, "silent": None, "rss": None}
    text, _ = exposition(report(receiver(state=None, failed={}, processes=[process])))
    assert values(text, "domain_events_child_consuming") == {("printer", "printer#0"): 0}
    for name in ("child_start_time_seconds", "child_silent_seconds", "receiver_state", "failed_total", "queue_depth"):
        assert values(text, f"domain_events_{name}") == {}
    assert exposition(report())[0]


def test_who_asks_for_openmetrics_gets_it() -> None:
    text, content_type = exposition(report(receiver()), [Depth("printer", "queue", 3)], OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    found = families(text, parse_openmetrics)
    plain = families(exposition(report(receiver()), [Depth("printer", "queue", 3)])[0])
    assert {f.name: f.samples for f in found.values() if f.type != "info"}.keys() <= plain.keys()
    assert found["domain_events_handled"].samples[0].value == 7


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=evil",
        "application/openmetrics-text; version=1.0.0.\r\nSet-Cookie: a=b",
        "\x00",
        "text/plain; version=1.0.0.x",
        "x" * 100_000,
    ],
)
def test_whatever_is_asked_for_the_content_type_is_ours(accept: str) -> None:
    text, content_type = exposition(report(receiver()), accept=accept)
    assert content_type.isprintable()
    assert "Cookie" not in content_type
    assert b"domain_events_handled_total" in text


HOSTILE = ['a"b', "a\\", "a\nb", 'x"} 1\nevil_total{a="', "\u2028\r", "ä€", "{", "# HELP evil"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(HOSTILE))
def test_hostile_names_are_values_of_labels_and_nothing_else(name: str) -> None:
    of_one = receiver(name, failed={name: 3}, restarts={name: 1})
    text, _ = exposition(report(of_one), [Depth(name, "queue", 1)])
    assert values(text, "domain_events_failed_total") == {(name, name): 3}
    assert values(text, "domain_events_child_restarts_total") == {(name, name): 1}
    assert values(text, "domain_events_handled_total") == {(name,): 7}
    assert values(text, "domain_events_queue_depth") == {("queue", name): 1}
    assert all(family.startswith("domain_events_") for family in families(text))
    assert (
        sum(len(family.samples) for family in families(text).values())
        == sum(
            len(family.samples)
            for family in families(exposition(report(receiver()), [Depth("b", "queue", 1)])[0]).values()
        )
        - 1
    )


def test_the_page_about_monitoring_names_all_of_them() -> None:
    text, _ = exposition(report(receiver()), [Depth("printer", "queue", 3)])
    rows = table("docs/monitoring.md", "metric")
    documented = {row[0].strip("`"): row[1] for row in rows}
    shown = {
        f"{name}{ {'counter': '_total'}.get(family.type, '') }": "gauge" if family.type == "info" else family.type
        for name, family in families(text).items()
    }
    assert documented == shown
    labels = {"receiver", "slot", "state", "kind", "cause", "error_type", "version"}
    for name, family in families(text).items():
        [row] = [row for row in rows if row[0].strip("`").removesuffix("_total") == name]
        told = set(re.findall(r"`(\w+)`", row[2])) & labels
        used = {label for sample in family.samples for label in sample.labels if label != "le"}
        assert told == used - ({"receiver"} if "receiver" not in told else set()), name
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for bounds in (SECONDS, LATENESS):
        assert ", ".join(f"{bound:g}" for bound in bounds) in page
    assert {row[0].strip("`") for row in table("docs/monitoring.md", "`cause`")[1:]} == set(Cause)


def test_who_does_not_ask_for_metrics_does_not_load_prometheus_client() -> None:
    code = (
        "import sys, domain_events, domain_events.cli.supervisor, domain_events.cli.operator.command\n"
        "import domain_events.supervisor.master\n"
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_prometheus_client_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import domain_events.metrics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "prometheus_client is not installed: install it, or domain-events with the extra 'metrics'" in done.stderr
