"""What grows: the length of a queue, and the number of receivers.

* A classic queue of 10 000 to 1 000 000 events, of which some thousand at its head are handled. All peers meet the same
  queue, which is filled up again after each.
* 1 to 200 receivers of one supervisor, each with its queue: how long until all consume, what memory they have, and what
  CPU they need while nothing happens. Both are those of the supervisor and all its children together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.speed import broker, peers, plain
from benchmarks.speed.contest import Contest, Rig, Values, one_case
from benchmarks.speed.measurement import LONGEST, STILL_UNDER_WAY, environment_of, prepared, report_of, values_of
from benchmarks.speed.measuring import cpu_of, pss_of
from benchmarks.speed.pouring import pour
from benchmarks.speed.programs import Program, running
from benchmarks.speed.task import Task

NAME = "growth"
LENGTHS = (10_000, 100_000, 1_000_000)
COUNT = 8000
"""Events at the head of the queue."""
PEERS = (peers.OURS, peers.C_SINGLE, peers.PIKA_SELECT)
RECEIVERS = (1, 10, 50, 200)
IDLE = 4.0
"""Seconds for which nothing happens."""
QUICKEST = 2
"""How many of each a try uses."""


def contests(rig: Rig) -> Iterator[Contest]:
    for length in LENGTHS[:QUICKEST] if rig.is_quick else LENGTHS:
        with prepared(rig, peers.OURS, rig.count(COUNT)) as task:
            chosen = [peer for peer in PEERS if peer.module != "c" or rig.c_programs]
            yield one_case(
                f"queue of {length}", {peer.name: partial(_head, rig, peer, task, length) for peer in chosen}
            )
    for number in RECEIVERS[:QUICKEST] if rig.is_quick else RECEIVERS:
        case = "1 receiver" if number == 1 else f"{number} receivers"
        yield replace(one_case(case, {plain.OURS.name: partial(_receivers, rig, number)}), most_rounds=3)


def _head(rig: Rig, peer: peers.Peer, task: Task, length: int) -> Values:
    missing = length - (broker.ready(rig.url, task.queue) or 0)
    if missing > 0:
        pour(rig.url, task.queue, missing)
    with tempfile.TemporaryDirectory() as folder:
        task = replace(task, report=str(Path(folder) / "report"))
        with running(peer.consuming, environment_of(peer, task)) as program:
            program.wait(partial(_is_done, task), "the head was handled", LONGEST)
            time.sleep(STILL_UNDER_WAY)
        return values_of(task)


def _is_done(task: Task) -> bool:
    return report_of(task) is not None


def _receivers(rig: Rig, number: int) -> Values:
    with plain.prepared(rig.url, plain.OURS, number) as place:
        began = time.monotonic()
        with running(plain.OURS.command(), place.environment) as program:
            program.wait(partial(_all_consume, program, number), "all consume", LONGEST)
            values = {"until_consuming_s": time.monotonic() - began}
            time.sleep(STILL_UNDER_WAY)
            pids = program.pids()
            before = sum(map(cpu_of, pids))
            time.sleep(IDLE)
            values["idle_cpu_percent"] = (sum(map(cpu_of, pids)) - before) / IDLE * 100
            values["pss_mib"] = sum(map(pss_of, pids))
            values["pss_of_each_mib"] = values["pss_mib"] / number
            return values


def _all_consume(program: Program, number: int) -> bool:
    """By the titles that the supervisor gives its children."""
    titles = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in program.pids()[1:]]
    return sum(b"consuming" in title for title in titles) == number
