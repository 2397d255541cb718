"""What a peer's program is asked to do, and what it reports: JSON in an environment variable, JSON in a file."""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.measuring import Cost, Span, percentile, session_of

VARIABLE = "BENCH_TASK"
SEVERAL_TASKS = "BENCH_TASKS"
"""Where a program has several: a list."""
DEFAULT_PREFETCH = 256
"""For those that have none of their own: RabbitMQ's documentation finds 100 to 300 best."""

WORK_ALONE = 400
"""Calls of `burn` that tell how long one takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    url: str
    queue: str
    """Also the routing key that is bound to it."""
    count: int
    """Events that are measured, after `warmup` others."""
    warmup: int
    report: str
    """Name of the file for the report."""
    broker_pid: int | None
    queue_type: str = "classic"
    prefetch: int | None = None
    """None: the library's default."""
    has_times: bool = False
    """The data of the events have the time of sending: report latencies."""
    threads: int = 1
    rate: float = 0.0
    """Events per second of the verb "pace"."""
    work: int = 0
    """How much each handler computes: rounds of `burn`."""

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    def write_report(self, cost: Cost, seconds: Sequence[float] = (), work: float | None = None) -> None:
        """`seconds`: the latencies that were seen, if they are asked for. `work`: seconds that one `burn` took."""
        report: dict[str, Any] = {
            "events": self.count,
            "seconds": cost.seconds,
            "cpu_seconds": cost.cpu,
            "broker_cpu_seconds": cost.broker_cpu,
        }
        if seconds:
            report |= {f"p{share}_us": percentile(seconds, share / 100) * 1e6 for share in (50, 90, 99)}
        if work is not None:
            report["work_seconds"] = work
        Path(self.report).write_text(json.dumps(report) + "\n")


def from_environment() -> Task:
    return Task(**json.loads(os.environ[VARIABLE]))


def run(verbs: Mapping[str, Callable[[Task], object]]) -> None:
    """The main program of a peer: the verb is its argument. A coroutine is run to its end."""
    result = verbs[sys.argv[1]](from_environment())
    if inspect.iscoroutine(result):
        import asyncio  # not for those who do without

        asyncio.run(result)


class Counting:
    """The handler of all consumers: counts, and reads the clocks when the warm-up and when everything is done.

    The CPU is that of the whole session: of a master and its children, whatever they are called.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._last = task.warmup + task.count
        self._count = 0
        self._span: Span | None = None
        self._seconds: list[float] = []
        self._work = task.work
        self._alone = 0.0

    def __call__(self, data: Mapping[str, Any]) -> None:
        """`data` of the event that is handled."""
        self._count += 1
        if self._work:
            burn(self._work)
        if self._task.has_times and self._span:
            self._seconds.append((time.time_ns() - data["sent_ns"]) / 1e9)
        if self._count == self._task.warmup:
            self._alone = self._work_alone()
            self._span = Span(session_of(os.getsid(0)), self._task.broker_pid)
        elif self._count == self._last:
            assert self._span, "no warm-up, so nothing has begun"
            cost = self._span.end()
            # Half before and half after: the machine is not the same at all times.
            work = (self._alone + self._work_alone()) / 2 if self._work else None
            self._task.write_report(cost, self._seconds, work)

    def _work_alone(self) -> float:
        """Seconds that the handler's work takes here when no event is between."""
        before = time.perf_counter()
        for _ in range(WORK_ALONE if self._work else 0):
            burn(self._work)
        return (time.perf_counter() - before) / WORK_ALONE


def burn(rounds: int) -> int:
    """Plain Python that computes, without memory and without system calls."""
    total = 0
    for number in range(rounds):
        total = (total + number * number) % 1_000_003
    return total
