"""Each event fails once and is to be called again 0.5 s later: how fast, and how late?

* burst: 200 events are in the queue when the consumer is let go. events/s is 200 by the time from the first call that
  fails to the last that succeeds. The delay is within that time, so that nobody can have more than 400/s.
* outside bursts: 20 events/s.

How late an event is: its second call, less its first, less 0.5 s. One event is retried before anything is measured, and
a second and a half go by: who makes a queue for the delay has made it, and it is old enough to be relied on.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.speed import broker
from benchmarks.speed.contest import Contest, Rig, Values
from benchmarks.speed.peers.retrying import notes
from benchmarks.speed.programs import ROOT, Program, running
from benchmarks.speed.queues import consumers

NAME = "retries"
BURST = 200
RATE = 20.0
STEADY = 100
"""Events at this rate."""
PROGRAMS = "benchmarks.speed.peers.retrying"
PEERS: Mapping[str, str] = {
    "domain-events": "ours",
    "dramatiq, 8 threads": "dramatiq_",
    "celery, prefork": "celery_",
    "domain-event-broker": "domain_event_broker_",
}
ENDINGS = ("", ":dead", ":retry:500", ".DQ", ".XQ", "-dl", "-delay-500")
"""Of the names of the queues that the peers make."""


@dataclass(frozen=True, slots=True)
class Retried:
    """An event and the times of its two calls."""

    failed: float
    succeeded: float

    @property
    def late(self) -> float:
        """Seconds."""
        return self.succeeded - self.failed - notes.DELAY


def contests(rig: Rig) -> Iterable[Contest]:
    yield Contest("retries", {peer: partial(_measure, rig, module) for peer, module in PEERS.items()})


def _measure(rig: Rig, module: str) -> dict[str, Values]:
    """Both cases, by name. Raises Failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes"
        queue = f"retrying-{uuid.uuid4().hex[:8]}"
        environment = {notes.URL: rig.url, notes.QUEUE: queue, notes.NOTES: str(file)}
        try:
            with running(["-m", PROGRAMS, module, "consume"], environment) as program:
                program.wait(lambda: consumers(rig.url, queue) > 0, "it consumes", 30)
                _send(module, environment, range(1))
                _wait(program, file, range(1))
                time.sleep(1.5)
                program.signal(signal.SIGSTOP)
                try:
                    _send(module, environment, range(1, BURST + 1))
                finally:
                    program.signal(signal.SIGCONT)
                burst = _wait(program, file, range(1, BURST + 1))
                time.sleep(0.5)
                numbers = range(1000, 1000 + rig.count(STEADY))
                _send(module, environment, numbers, RATE)
                steady = _wait(program, file, numbers)
        finally:
            broker.delete(rig.url, *(queue + ending for ending in ENDINGS))
    took = max(each.succeeded for each in burst) - min(each.failed for each in burst)
    return {
        f"burst of {BURST}": {"events_per_second": BURST / took, **_lateness(burst)},
        f"{RATE:g} events/s": _lateness(steady),
    }


def _send(module: str, environment: Mapping[str, str], numbers: range, rate: float = 0) -> None:
    subprocess.run(
        [sys.executable, "-m", PROGRAMS, module, "send", str(numbers[0]), str(numbers[-1]), str(rate)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        timeout=60 + len(numbers),
    )


def _wait(program: Program, file: Path, numbers: range) -> list[Retried]:
    """Until each of these events has been called twice."""
    calls: dict[int, list[float]] = {}

    def are_retried() -> bool:
        calls.clear()
        for call in notes.read(file):
            calls.setdefault(call.event, []).append(call.at)
        return all(len(calls.get(number, ())) >= 2 for number in numbers)

    program.wait(are_retried, "all are retried", 60)
    return [Retried(*sorted(calls[number])[:2]) for number in numbers]


def _lateness(retried: Iterable[Retried]) -> dict[str, float]:
    late = [each.late * 1000 for each in retried]
    percentiles = statistics.quantiles(late, n=100, method="inclusive")
    return {"late_p50_ms": percentiles[49], "late_p99_ms": percentiles[98]}
