"""How senders are measured, the same for all: each event by itself, many at once, from threads, at a steady rate."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.speed.broker import DATA
from benchmarks.speed.measuring import Span
from benchmarks.speed.task import Task

Send = Callable[[], object]
"""Makes an event, and returns when the broker has confirmed it."""


def one_by_one(task: Task, send: Send) -> None:
    """Reports the latencies too."""
    for _ in range(task.warmup):
        send()
    seconds = []
    span = _span(task)
    for _ in range(task.count):
        before = time.perf_counter()
        send()
        seconds.append(time.perf_counter() - before)
    task.write_report(span.end(), seconds)


async def one_by_one_async(task: Task, send: Callable[[], Awaitable[object]]) -> None:
    for _ in range(task.warmup):
        await send()
    seconds = []
    span = _span(task)
    for _ in range(task.count):
        before = time.perf_counter()
        await send()
        seconds.append(time.perf_counter() - before)
    task.write_report(span.end(), seconds)


def many(task: Task, send_all: Callable[[int], object]) -> None:
    """`send_all` sends so many and returns when all are confirmed."""
    send_all(task.warmup)
    span = _span(task)
    send_all(task.count)
    task.write_report(span.end())


async def many_async(task: Task, send: Callable[[], Awaitable[object]], *, window: int) -> None:
    """`window` of them at a time under way: coroutines that take the next one when theirs is confirmed."""

    async def send_some(numbers: Any) -> None:
        for _ in numbers:
            await send()

    async def send_all(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(send_some(numbers) for _ in range(window)))

    await send_all(task.warmup)
    span = _span(task)
    await send_all(task.count)
    task.write_report(span.end())


def from_threads(task: Task, send: Send) -> None:
    """`task.threads` threads, each sending its part one by one."""
    for _ in range(task.warmup):
        send()
    part = task.count // task.threads
    failures: list[BaseException] = []

    def send_part() -> None:
        ready.wait()
        try:
            for _ in range(part):
                send()
        except BaseException as error:
            failures.append(error)
            raise

    ready = threading.Barrier(task.threads + 1)
    threads = [threading.Thread(target=send_part) for _ in range(task.threads)]
    for thread in threads:
        thread.start()
    span = _span(task)
    ready.wait()
    for thread in threads:
        thread.join()
    cost = span.end()
    if failures:
        raise failures[0]
    assert part * task.threads == task.count, "the count must be a multiple of the threads"
    task.write_report(cost)


def pace(task: Task, send: Callable[[dict[str, Any]], object]) -> None:
    """`task.rate` events a second, each with its time of sending in the data given to `send`."""
    began = time.monotonic()
    for number in range(task.warmup + task.count):
        time.sleep(max(0.0, began + number / task.rate - time.monotonic()))
        send({**DATA, "sent_ns": time.time_ns()})


def _span(task: Task) -> Span:
    return Span([os.getpid()], task.broker_pid)
