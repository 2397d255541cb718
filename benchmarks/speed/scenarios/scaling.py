"""1, 2 and 4 consumers at once, each with a full queue of its own: what do they get through together?

Ours are receivers of one supervisor; of the peers, as many programs are run. events/s counts from the first event that
one of them handles after its warm-up to the last event of all: who starts late, or ends late, is part of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.speed import broker, peers
from benchmarks.speed.contest import Contest, Rig, Values, one_case
from benchmarks.speed.measurement import (
    LONGEST,
    STILL_UNDER_WAY,
    environment_of,
    prepared,
    report_of,
    run_verb,
    values_of,
)
from benchmarks.speed.pouring import pour
from benchmarks.speed.programs import running
from benchmarks.speed.task import SEVERAL_TASKS, Task

NAME = "scaling"
NUMBERS = (1, 2, 4)
COUNT = 8_000
"""Of each receiver, for the fastest."""
PEERS = (peers.OURS, peers.C_SINGLE, peers.PIKA_SELECT, peers.DRAMATIQ_64)
SEVERAL = ("bin/domain-events-supervisor", "benchmarks.speed.peers.several")


def contests(rig: Rig) -> Iterable[Contest]:
    chosen = [peer for peer in PEERS if peer.module != "c" or rig.c_programs]
    for number in NUMBERS:
        case = "1 receiver" if number == 1 else f"{number} receivers"
        yield one_case(case, {peer.name: partial(_measure, rig, peer, number) for peer in chosen})


def _measure(rig: Rig, peer: peers.Peer, number: int) -> Values:
    with ExitStack() as stack:
        count = rig.count(COUNT // peer.costs)
        tasks = [stack.enter_context(prepared(rig, peer, count)) for _ in range(number)]
        for task in tasks:
            if peer.fills:
                run_verb(peer, "fill", task)
            else:
                pour(rig.url, task.queue, task.warmup + task.count)
        with ExitStack() as programs:
            started = [programs.enter_context(running(*program)) for program in _programs(peer, tasks)]
            for task, program in zip(tasks, started if len(started) == number else started * number, strict=True):
                program.wait(partial(_is_done, task), "all events were handled", LONGEST)
            time.sleep(STILL_UNDER_WAY)
        for task in tasks:
            broker.wait_for(rig.url, task.queue, 0, within=broker.SETTLED_WITHIN)
        ended = [Path(task.report).stat().st_mtime for task in tasks]
        took = [task.count / values_of(task)["events_per_second"] for task in tasks]
        began = min(end - seconds for end, seconds in zip(ended, took, strict=True))
        return {"events_per_second": number * count / (max(ended) - began)}


def _programs(peer: peers.Peer, tasks: Sequence[Task]) -> Iterable[tuple[Sequence[str], dict[str, str]]]:
    if peer is peers.OURS:
        yield SEVERAL, {SEVERAL_TASKS: json.dumps([asdict(task) for task in tasks])}
    else:
        for task in tasks:
            yield peer.consuming, environment_of(peer, task)


def _is_done(task: Task) -> bool:
    return report_of(task) is not None
