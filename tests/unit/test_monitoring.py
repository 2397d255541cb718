"""The files of monitoring/: promtool and Grafana's own types take them, each alert fires when it should and not when it
should not, and every metric and label in them is one that there is."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.documents import ROOT, table
from tests.monitoring import DASHBOARD, RULES, expressions_of_dashboard, filled, rules
from tests.unit.test_docs import anchors

HERE = 'job="domain-events",instance="shop:9100"'
RECEIVER = HERE + ',receiver="printer"'

Series = dict[str, str]
"""Values in promtool's notation, one for each minute: `0+5x9` is 0, 5, ... 45."""


@dataclass(frozen=True)
class Case:
    """`fires` for `minutes`, with `labels` beside the rule's own; `quiet` does not."""

    fires: Series
    minutes: int
    summary: str
    quiet: Series
    labels: tuple[str, ...] = ("job", "instance", "receiver")


def of(name: str, values: str, **labels: str) -> Series:
    """A series of the receiver `printer`."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f"{name}{{{RECEIVER}{more}}}": values}


def state(values: str, which: str) -> Series:
    return of("domain_events_receiver_state", values, state=which)


def restarts(values: str, cause: str) -> Series:
    return of("domain_events_child_restarts_total", values, cause=cause)


def depth(values: str, kind: str) -> Series:
    return of("domain_events_queue_depth", values, kind=kind)


def lag(slow: str) -> Series:
    """Ten events a minute; `slow` of them are older than 300 s, and none than 1800."""
    fast = {le: of("domain_events_lag_seconds_bucket", "0+8x40", le=le) for le in ("60", "300")}
    late = {le: of("domain_events_lag_seconds_bucket", slow, le=le) for le in ("1800", "+Inf")}
    return {**fast["60"], **fast["300"], **late["1800"], **late["+Inf"]}


CASES = {
    "DomainEventsSupervisorDown": Case(
        fires={f"up{{{HERE}}}": "1 0x9"},
        minutes=5,
        labels=("job", "instance"),
        summary="shop:9100: no supervisor answers",
        quiet={f"up{{{HERE}}}": "1 0 1x9", 'up{job="another"}': "0x9"},
    ),
    "DomainEventsNoSupervisor": Case(
        fires={'up{job="another"}': "1x9"},
        minutes=6,
        labels=(),
        summary="No supervisor is known at all",
        quiet={f'domain_events_master_info{{{HERE},version="1"}}': "1x9"},
    ),
    "DomainEventsReceiverFailed": Case(
        fires=state("0 1x9", "failed"),
        minutes=5,
        summary="printer has failed on shop:9100",
        quiet={**state("0 1 1 0 0 1 1 0 0 0", "failed"), **state("1x9", "backoff")},
    ),
    "DomainEventsReceiverInBackoff": Case(
        fires=state("0 1 0 1 1 0 1 0 1 1 0 1", "backoff"),
        minutes=9,
        summary="printer does not come up on shop:9100",
        quiet=state("0 1 1 1 0 0 0 0 1 1 0 0", "backoff"),
    ),
    "DomainEventsNotConsuming": Case(
        fires=of("domain_events_child_consuming", "1 0x9", slot="printer#0"),
        minutes=8,
        labels=("job", "instance", "receiver", "slot"),
        summary="printer#0 does not consume on shop:9100",
        quiet=of("domain_events_child_consuming", "1 0 0 0 1 0 0 0 1 1", slot="printer#0"),
    ),
    "DomainEventsSupervisorRestarts": Case(
        fires={f"domain_events_master_start_time_seconds{{{HERE}}}": "1 1 7 7 9 11 11 11"},
        minutes=7,
        labels=("job", "instance"),
        summary="The supervisor on shop:9100 starts again and again",
        quiet={f"domain_events_master_start_time_seconds{{{HERE}}}": "1 1 7 7 7 9 9 9"},
    ),
    "DomainEventsDeadLetters": Case(
        fires=of("domain_events_dead_lettered_total", "0 0 1 1"),
        minutes=3,
        summary="printer has given up events",
        quiet=of("domain_events_dead_lettered_total", "7x20"),
    ),
    "DomainEventsDropped": Case(
        fires=of("domain_events_dropped_total", "0 0 1 1"),
        minutes=3,
        summary="printer has lost events",
        quiet={**of("domain_events_dropped_total", "7x20"), **of("domain_events_dead_lettered_total", "0+1x20")},
    ),
    "DomainEventsDeadLettersWait": Case(
        fires=depth("3x1500", "dead"),
        minutes=1450,
        labels=("job", "receiver"),
        summary="3 dead letters of printer wait for a person",
        quiet={**depth("3x1000 0x500", "dead"), **depth("3x1500", "queue")},
    ),
    "DomainEventsRetryStorm": Case(
        fires={**of("domain_events_retried_total", "0+60x40"), **of("domain_events_handled_total", "0+50x40")},
        minutes=30,
        summary="printer retries more events than it handles",
        quiet={**of("domain_events_retried_total", "0+60x40"), **of("domain_events_handled_total", "0+70x40")},
    ),
    "DomainEventsQueueGrows": Case(
        fires=depth("0+50x60", "queue"),
        minutes=40,
        labels=("job", "receiver"),
        summary="The queue of printer grows",
        quiet={**depth("5000-50x60", "queue"), **depth("0+50x60", "retry")},
    ),
    "DomainEventsLate": Case(
        fires=lag("0+10x40"),
        minutes=30,
        labels=("job", "receiver"),
        summary="printer is late",
        quiet=lag("0+8x40"),
    ),
    "DomainEventsHandlerHangs": Case(
        fires=of("domain_events_oldest_in_flight_seconds", "0+60x30"),
        minutes=17,
        summary="A handler of printer does not return on shop:9100",
        quiet=of("domain_events_oldest_in_flight_seconds", "0+60x14 0x20"),
    ),
    "DomainEventsHangsEnded": Case(
        fires=restarts("0 0 1 1", "timeout"),
        minutes=3,
        summary="Processes of printer were ended because they hung",
        quiet={**restarts("0+1x9", "SIGKILL"), **restarts("2x9", "hang")},
    ),
    "DomainEventsChildSilent": Case(
        fires=of("domain_events_child_silent_seconds", "3 4 63", slot="printer#0"),
        minutes=2,
        labels=("job", "instance", "receiver", "slot"),
        summary="printer#0 gives no sign of life on shop:9100",
        quiet=of("domain_events_child_silent_seconds", "3 4 5", slot="printer#0"),
    ),
    "DomainEventsRestarts": Case(
        fires={**restarts("0 1 2 3", "SIGSEGV"), **restarts("0 0 1 1", "boot")},
        minutes=4,
        summary="Processes of printer die on shop:9100",
        quiet={**restarts("0 1 1 1", "crash"), **restarts("0+5x9", "reload"), **restarts("0+5x9", "recycle")},
    ),
    "DomainEventsSendFails": Case(
        fires=of("domain_events_send_failed_total", "0 0 1 1"),
        minutes=3,
        summary="printer cannot send events",
        quiet={**of("domain_events_send_failed_total", "7x20"), **of("domain_events_sent_total", "0+9x20")},
    ),
    "DomainEventsLogRecordsDropped": Case(
        fires={f'domain_events_log_records_dropped_total{{{HERE},slot="printer#0"}}': "0 0 500 500"},
        minutes=3,
        labels=("job", "instance"),
        summary="The log of shop:9100 is not all of it",
        quiet={f'domain_events_log_records_dropped_total{{{HERE},slot="printer#0"}}': "500x20"},
    ),
}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules() -> None:
    assert f"{len(CASES)} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_when_it_should_not(tmp_path: Path) -> None:
    assert [rule["alert"] for rule in rules()] == list(CASES)
    values = {"job": "domain-events", "instance": "shop:9100", "receiver": "printer", "slot": "printer#0"}
    tests = []
    for rule in rules():
        case = CASES[rule["alert"]]
        expected = {
            "exp_labels": {**rule["labels"], **{label: values[label] for label in case.labels}},
            "exp_annotations": {"summary": case.summary, "runbook": rule["annotations"]["runbook"]},
        }
        tests.append(given(case.fires, [asked(rule["alert"], case.minutes, expected)]))
        last = max(len(expanded(values)) for values in case.quiet.values()) - 1
        step = max(1, last // 50)
        tests.append(given(case.quiet, [asked(rule["alert"], at) for at in range(0, last + 1, step)]))
    # promtool compares whole texts: those of descriptions hold numbers, and are looked at below.
    stripped = yaml.safe_load(RULES.read_text())
    for group in stripped["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]["description"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(stripped))
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "test.yml")


def given(series: Series, asked_for: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": inputs, "alert_rule_test": asked_for}


def asked(alert: str, minutes: int, *expected: dict[str, Any]) -> dict[str, Any]:
    return {"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": list(expected)}


def expanded(values: str) -> list[str]:
    """As many as there are values."""
    found: list[str] = []
    for part in values.split():
        _, _, times = part.partition("x")
        found += [part] * (int(times or 0) + 1)
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_rule_names_labels_that_its_alerts_have_and_a_runbook_that_is_there(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= set(CASES[rule["alert"]].labels)
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors(ROOT / file)


# Metrics and labels


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric, with the labels that are asked for."""
    for name, _, labels in re.findall(r"\b(domain_events_\w+|up(?=\{))(\{([^}]*)\})?", expression):
        yield name, set(re.findall(r'(\w+)\s*[=!]~?\s*"', labels))
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        yield "", {label.strip() for label in grouping.split(",")}


def expressions() -> dict[str, str]:
    """Of rules and dashboard, by where they stand."""
    found = {str(rule["alert"]): str(rule["expr"]) for rule in rules()}
    return found | expressions_of_dashboard()


FROM_PROMETHEUS = {"job", "instance", "le", ""}
"""Labels that a scrape adds, or the exposition of a histogram."""


def documented() -> dict[str, set[str]]:
    """Metrics and their labels, as docs/monitoring.md tells: that it is true is another test's."""
    found: dict[str, set[str]] = {}
    for row in table("docs/monitoring.md", "metric"):
        name, kind, labels = row[0].strip("`"), row[1], set(re.findall(r"`(\w+)`", row[2]))
        if "master" not in name and "log_records" not in name:
            labels.add("receiver")
        names = [name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))] if kind == "histogram" else [name]
        found.update(dict.fromkeys(names, labels))
    return found


@pytest.mark.parametrize("place", expressions())
def test_each_metric_and_label_is_one_that_there_is(place: str) -> None:
    known = {**documented(), "up": set[str]()}
    asked_for = list(selectors(expressions()[place]))
    named = [name for name, _ in asked_for if name]
    assert named
    assert set(named) <= set(known)
    labels = set().union(*(known[name] for name in named)) | FROM_PROMETHEUS
    for name, wanted in asked_for:
        assert wanted <= (known[name] | FROM_PROMETHEUS if name else labels), (name, wanted)


# The dashboard


def test_every_expression_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    """promtool parses rules: what Grafana fills in is filled in here, and each expression made a rule."""
    found = []
    for number, expression in enumerate(expressions_of_dashboard().values()):
        found.append({"record": f"panel:{number}", "expr": filled(expression, receiver="printer|mailer")})
        assert "$" not in found[-1]["expr"]
    assert len(found) > 15
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": found}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", path)


def test_the_dashboard_is_one_for_grafanas_own_types() -> None:
    """What they do not know is lost on the way through them, and what must be there is missing after it."""
    given_ = json.loads(DASHBOARD.read_text())
    read = json.loads(json.dumps(Dashboard.from_json(given_), default=lambda value: value.to_json()))
    assert missing(given_, read) == []


def missing(given_: Any, read: Any, path: str = "") -> list[str]:
    if isinstance(given_, dict):
        if not isinstance(read, dict):
            return [path]
        return [lost for key in given_ for lost in missing(given_[key], read.get(key, ...), f"{path}.{key}")]
    if isinstance(given_, list):
        if not isinstance(read, list) or len(given_) != len(read):
            return [path]
        return [lost for n, each in enumerate(given_) for lost in missing(each, read[n], f"{path}[{n}]")]
    return [] if given_ == read or given_ is None else [path]


def test_the_dashboard_can_be_imported_anywhere_and_its_panels_have_their_places() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None  # else Grafana takes it for one that it has
    assert dashboard["uid"]
    variables = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query", "receiver": "query"}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & mine, f"{panel['title']} covers another panel"
        assert max(x for x, _ in mine) < 24
        cells |= mine
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "$datasource" or panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]
            assert panel["targets"]
