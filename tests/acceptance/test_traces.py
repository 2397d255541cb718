"""Traces over processes: from the sender to the children of a supervisor, whose spans are exported before they end."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from domain_events import Sender
from tests.acceptance.service import COMMAND
from tests.brokers import Broker, Queues
from tests.processes import Processes
from tests.spans import read_spans, traced
from tests.waiting import wait_until

N = 20


def ids(span: dict[str, Any]) -> tuple[str, str]:
    return span["context"]["trace_id"], span["context"]["span_id"]


@pytest.mark.parametrize("provider", ["child", "master"])
def test_a_trace_spans_all_processes_and_nothing_of_it_is_lost_when_they_end(
    provider: str, broker: Broker, queues: Queues, processes: Processes, unique: str, tmp_path: Path
) -> None:
    first, second = queues.forget_after(f"{unique}first", 200), queues.forget_after(f"{unique}second")
    file = tmp_path / "spans.jsonl"
    service = processes.start(
        [sys.executable, COMMAND, "tests.acceptance.traced_receivers"],
        env={
            "DOMAIN_EVENT_BROKER": broker.url,
            "TEST_PREFIX": unique,
            "TEST_SPANS": str(file),
            "TEST_PROVIDER": provider,
        },
    )
    wait_until(lambda: service.output().count("event=child_consuming") >= 3, 60, "all children consume")
    done = queues.declare_watch(f"{unique}done")
    with traced() as traces:
        Sender(broker.url).send_many([(f"{unique}first.asked", n) for n in range(N)])
    queues.wait_count(done, N, deadline=60)
    service.terminate()
    assert service.wait() == 0

    spans = read_spans(file)
    by_id = {ids(span): span for span in spans}
    assert len(by_id) == len(spans)  # no process exports what another one has
    assert Counter(span["name"] for span in spans) == {
        f"process domain-events:{unique}first.asked:{first}": 2 * N,
        f"send domain-events:{unique}second.asked": N,
        f"process domain-events:{unique}second.asked:{second}": N,
        f"send domain-events:{unique}done": N,
    }
    sent = [span.context for span in traces.all(f"create domain-events:{unique}first.asked") if span.context]
    origins = {(f"0x{context.trace_id:032x}", f"0x{context.span_id:016x}") for context in sent}
    assert len(origins) == N
    for span in spans:
        if span["name"] == f"send domain-events:{unique}done":
            assert ancestor(span, by_id, 4) in origins


def ancestor(span: dict[str, Any], by_id: dict[tuple[str, str], dict[str, Any]], n: int) -> tuple[str, str]:
    """The `n`-th one, the parent being the first: it may be in another process."""
    for _ in range(n - 1):
        span = by_id[span["context"]["trace_id"], span["parent_id"]]
    return span["context"]["trace_id"], span["parent_id"]
