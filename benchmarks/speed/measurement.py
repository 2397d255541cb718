"""One measurement of a peer: its queue made and filled, its program run, its report read, its queue found empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed import broker
from benchmarks.speed.contest import Failed, Rig, Values, last_words
from benchmarks.speed.peers import PACKAGE, Peer
from benchmarks.speed.pouring import pour
from benchmarks.speed.programs import ROOT, running
from benchmarks.speed.queues import consumers
from benchmarks.speed.task import Task

LONGEST = 120.0
"""Seconds that one measurement may take."""
ENDINGS = ("", ":dead", ".DQ", ".XQ")
"""Of the names of the queues that peers make."""
STILL_UNDER_WAY = 0.3
"""Seconds for the acks of the last events, before a consumer is ended."""


def consume(rig: Rig, peer: Peer, count: int, **more: Any) -> Values:
    """Events/s and CPU per event of a consumer that finds `count` events in its queue."""
    with prepared(rig, peer, count, **more) as task:
        if peer.fills:
            run_verb(peer, "fill", task)
            broker.wait_for(rig.url, task.queue, task.warmup + task.count)
        else:
            pour(rig.url, task.queue, task.warmup + task.count)
        with running(peer.consuming, environment_of(peer, task)) as program:
            program.wait(lambda: report_of(task) is not None, "all events were handled", LONGEST)
            time.sleep(STILL_UNDER_WAY)
        # What it had not acknowledged is back now that it has ended.
        broker.wait_for(rig.url, task.queue, 0, within=broker.SETTLED_WITHIN)
        return values_of(task)


def latency(rig: Rig, peer: Peer, publisher: Peer, count: int, rate: float) -> Values:
    """From sending to the handler, when there is little to do; client CPU per event of the consumer."""
    with prepared(rig, peer, count, has_times=True, rate=rate) as task:
        with running(peer.consuming, environment_of(peer, task)) as program:
            program.wait(lambda: consumers(rig.url, task.queue) > 0, "it consumes", LONGEST)
            run_verb(publisher, "pace", task)
            program.wait(lambda: report_of(task) is not None, "all events were handled", LONGEST)
            time.sleep(STILL_UNDER_WAY)
        broker.wait_for(rig.url, task.queue, 0, within=broker.SETTLED_WITHIN)
        values = values_of(task)
        del values["events_per_second"]  # as many as were sent
        return values


def publish(rig: Rig, peer: Peer, verb: str, count: int, *, warmup: int = 100, threads: int = 1) -> Values:
    """What sending costs, and how long it takes. All events must be in the queue then."""
    with prepared(rig, peer, count, warmup=warmup, threads=threads) as task:
        run_verb(peer, verb, task)
        broker.wait_for(rig.url, task.queue, task.warmup + count, within=broker.SETTLED_WITHIN)
        return values_of(task)


@contextmanager
def prepared(rig: Rig, peer: Peer, count: int, *, warmup: int | None = None, **more: Any) -> Iterator[Task]:
    """A queue of its own, deleted when all is done. The file of the report is in a folder that goes too."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            url=rig.url,
            queue=f"bench.{peer.module}.{uuid.uuid4().hex[:6]}",
            count=count,
            warmup=max(1, min(500, count // 5)) if warmup is None else warmup,
            report=str(Path(folder) / "report"),
            broker_pid=rig.broker_pid,
            **more,
        )
        try:
            if peer.declares:
                run_verb(peer, "declare", task)
            else:
                broker.declare(rig.url, task.queue, task.queue_type)
            yield task
        finally:
            broker.delete(rig.url, *(task.queue + ending for ending in ENDINGS))


def run_verb(peer: Peer, verb: str, task: Task) -> None:
    """Its program, to the end. Raises Failed."""
    done = subprocess.run(
        [sys.executable, "-m", f"{PACKAGE}.{peer.module}", verb],
        cwd=ROOT,
        env={**os.environ, **environment_of(peer, task)},
        capture_output=True,
        timeout=LONGEST,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{peer.name}, {verb}, ended with {done.returncode}: {last_words(done)}")


def environment_of(peer: Peer, task: Task) -> dict[str, str]:
    return {**task.environment(), **dict(peer.options)}


def report_of(task: Task) -> dict[str, Any] | None:
    """None as long as it is not complete."""
    try:
        text = Path(task.report).read_text()
    except FileNotFoundError:
        return None
    return json.loads(text) if text.endswith("\n") else None


def values_of(task: Task) -> Values:
    report = report_of(task)
    if report is None:
        raise Failed("there is no report")
    events = report["events"]
    # In the order of the columns: what matters most first.
    values = {f"p{share}_ms": report[f"p{share}_us"] / 1e3 for share in (50, 90, 99) if f"p{share}_us" in report}
    if "work_seconds" in report:
        values["of_bound_percent"] = events * report["work_seconds"] / report["seconds"] * 100
    values["events_per_second"] = events / report["seconds"]
    values["client_cpu_us"] = report["cpu_seconds"] / events * 1e6
    if task.broker_pid:
        values["broker_cpu_us"] = report["broker_cpu_seconds"] / events * 1e6
    return values
