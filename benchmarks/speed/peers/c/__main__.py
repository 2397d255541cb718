"""Becomes one of the C programs, with the arguments that the task means.

BENCH_ACK_EVERY: how many events an ack. BENCH_OUR_PROPERTIES: what is sent has the properties that our events have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from benchmarks.speed.broker import EXCHANGE, body
from benchmarks.speed.peers.c import CACHE
from benchmarks.speed.task import DEFAULT_PREFETCH, Task, run

WINDOW = 1000
"""Of unconfirmed events, when many are sent."""


def consume(task: Task) -> None:
    prefetch = task.prefetch or DEFAULT_PREFETCH
    ack_every = min(int(os.environ.get("BENCH_ACK_EVERY", "1")), prefetch)
    more = ("latency",) if task.has_times else ()
    _become(task, "consume", task.url, task.queue, task.warmup + task.count, prefetch, ack_every, task.warmup, *more)


def publish_one(task: Task) -> None:
    _publish(task, 1)


def publish_many(task: Task) -> None:
    _publish(task, WINDOW)


def _publish(task: Task, window: int) -> None:
    file = Path(f"{task.report}.body")
    file.write_bytes(body(task.queue))
    count = task.warmup + task.count
    _become(task, "publish", task.url, EXCHANGE, task.queue, count, window, file, task.warmup)


def _become(task: Task, program: str, *arguments: object) -> NoReturn:
    report = os.open(task.report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(report, 1)
    os.environ["BENCH_BROKER_PID"] = str(task.broker_pid or "")
    os.execv(CACHE / program, [program, *map(str, arguments)])


run({"consume": consume, "publish_one": publish_one, "publish_many": publish_many})
