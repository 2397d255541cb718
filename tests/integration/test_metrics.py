"""`Metrics` in processes that run under no supervisor, with events of a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from domain_events import DeadLetter, DomainEvent, Receiver, Retry, Sender, SendError, send_domain_events
from domain_events.measuring import MOST_ERROR_TYPES, OTHER
from domain_events.metrics import Metrics
from tests.brokers import Broker, Queues
from tests.consuming import consuming
from tests.observing import observing
from tests.processes import ROOT
from tests.waiting import wait_until


def handle(event: DomainEvent) -> None:
    match event.data:
        case "retry" if not event.retries:
            raise Retry(0.2)
        case "dead":
            raise DeadLetter("as asked")
        case str(name) if name.startswith("Error"):
            raise type(name, (Exception,), {})


@pytest.mark.parametrize("threads", [1, 4])
def test_a_process_of_ones_own_counts_as_a_supervisor_does(
    threads: int, broker: Broker, queues: Queues, unique: str
) -> None:
    queues.forget_after(unique + "work", 200)
    queues.forget_after(unique + "loose")
    receiver = Receiver(broker.url)
    receiver.register(handle, unique + "work", [unique + "work"], max_retries=1, threads=threads)
    receiver.register(handle, unique + "loose", [unique + "loose"], dead_letter=False)
    receiver.declare()
    registry = CollectorRegistry()

    def value(name: str, of: str | None = "work", **labels: str) -> float | None:
        receiver_label = {} if of is None else {"receiver": of and unique + of}
        return registry.get_sample_value(f"domain_events_{name}", {**receiver_label, **labels})

    with observing(Metrics(registry)):
        data = [*range(10), "retry", "dead", "ErrorA", "ErrorA"]
        send_domain_events([(unique + "work", each) for each in data], connection_settings=broker.url)
        send_domain_events([(unique + "loose", "ErrorB")], connection_settings=broker.url)
        queues.publish(unique + "work", b"no event")
        with Sender(broker.url) as sender, pytest.raises(SendError):
            sender.send(unique + "nobody", 1, mandatory=True)
        with consuming(receiver):
            wait_until(lambda: value("handled_total") == 11 and value("dead_lettered_total") == 4, 60)
            wait_until(lambda: value("dropped_total", "loose") == 1, 60)
    assert value("delivered_total") == 15
    assert value("retried_total") == 1
    assert value("failed_total", error_type="Retry") == 1
    assert value("failed_total", error_type="DeadLetter") == 1
    assert value("failed_total", error_type="ErrorA") == 2
    assert value("failed_total", error_type="MalformedEvent") == 1
    assert value("failed_total", "loose", error_type="ErrorB") == 1
    assert value("handler_seconds_count") == value("lag_seconds_count") == 15, "no handler saw the malformed one"
    assert value("handler_seconds_bucket", le="300.0") == 15
    lateness = value("lag_seconds_sum")
    assert lateness is not None
    assert lateness > 0
    assert value("in_flight") == value("in_flight", "loose") == 0
    assert value("sent_total", "") == len(data) + 1
    assert value("send_failed_total", "") == 1


def test_hostile_types_of_errors_do_not_fill_the_registry() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for n in range(40):
        metrics.failed("a", None, 0.0, type(f"Error{n}", (Exception,), {})(), "why")
        metrics.failed("a", None, 0.0, type("x" * 100, (Exception,), {})(), "why")
    [family] = [family for family in registry.collect() if family.name == "domain_events_failed"]
    types = {s.labels["error_type"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert len(types) == MOST_ERROR_TYPES + 1
    assert types[OTHER] == 40 + 40 - MOST_ERROR_TYPES


def test_a_registry_has_one_of_them() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)


WORKERS = """
import os, sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from domain_events import observe, send_domain_event
from domain_events.metrics import Metrics

observe(Metrics(None))  # before the forks, as a preloading web server does
pids = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        for _ in range(n + 1):
            send_domain_event(sys.argv[1], n)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
    mark_process_dead(pid)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_the_workers_of_a_web_server_are_added_up(broker: Broker, unique: str, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DOMAIN_EVENT_BROKER": broker.url,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    command = [sys.executable, "-c", WORKERS, unique + "key"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    samples: dict[str, Any] = {
        sample.name: sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
        if sample.name.startswith("domain_events_")
    }
    assert samples["domain_events_sent_total"] == 6
