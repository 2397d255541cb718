"""A real Prometheus scrapes a real supervisor: all rules of monitoring/ can be evaluated and one fires, and every
panel of the dashboard has something to show."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.deploying import Connected
from tests.acceptance.site import ANY, Site
from tests.acceptance.trouble import DEADLINE
from tests.monitoring import RULES, expressions_of_dashboard, filled, rules
from tests.processes import Processes
from tests.waiting import wait_until

EMPTY_WHEN_ALL_IS_WELL = {"Restarts by cause A"}
"""Shows only what has happened."""


class Prometheus:
    def __init__(self, processes: Processes, folder: Path, target: str) -> None:
        place = socket.socket()
        place.bind(("127.0.0.1", 0))
        # Nobody else gets the port until it listens there, which asks for the same.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = place.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "domain-events", "static_configs": [{"targets": [target]}]}],
        }
        path = folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        processes.start(
            [
                "prometheus",
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        )
        with place:
            wait_until(self._is_ready, DEADLINE, "Prometheus is ready")

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):  # refused, or 503
            urllib.request.urlopen(f"{self._url}/-/ready", timeout=10).close()
            return True
        return False

    def ask(self, what: str, **parameters: str) -> Any:
        """The data of its answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}?{query}", timeout=DEADLINE) as reply:
            return json.load(reply)["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.ask("query", query=expression)["result"])


@pytest.fixture
def service(connected: Connected) -> Connected:
    """One receiver, some of whose events have failed."""
    connected.clean("work")
    connected.app.write("1", "receive('work', max_retries=1)\n")
    return connected


def test_rules_and_panels_are_for_what_a_supervisor_tells(
    service: Connected, processes: Processes, tmp_path: Path
) -> None:
    site = Site(service.start(*ANY, "--control", str(service.control), children=1))
    prometheus = Prometheus(processes, tmp_path, site.address)
    name = service.prefix + "work"
    wait_until(lambda: prometheus.query(f'domain_events_queue_depth{{receiver="{name}",kind="dead"}}'), DEADLINE)
    service.send("work.asked", 1)
    service.send("work.asked", 2, retry=1)
    service.send("work.asked", 3, fail=True)
    service.wait_handled("work", [1, 2])
    # It fires: one event was given up, which Prometheus has seen as an increase.
    firing = wait_until(
        lambda: [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"],
        DEADLINE,
        "an alert",
        pause=0.5,
    )
    labels = firing[0]["labels"]
    assert (labels["alertname"], labels["receiver"]) == ("DomainEventsDeadLetters", name)
    assert firing[0]["annotations"]["summary"] == f"{name} has given up events"
    # All others were evaluated as well, and none of them fires.
    known = {rule["name"]: rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert set(known) == {rule["alert"] for rule in rules()}
    assert {rule["health"] for rule in known.values()} == {"ok"}
    assert {rule["name"] for rule in known.values() if rule["state"] == "firing"} == {"DomainEventsDeadLetters"}

    def without_data() -> set[str]:
        return {
            place
            for place, expression in expressions_of_dashboard().items()
            if not prometheus.query(filled(expression))
        }

    wait_until(lambda: without_data() <= EMPTY_WHEN_ALL_IS_WELL, DEADLINE, "data in every panel", pause=1.0)
