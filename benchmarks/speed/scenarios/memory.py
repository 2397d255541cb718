"""How much memory has an idle consumer, and how much each further one in the same program?

PSS of all processes of a plain program: what processes share is counted once. One event has been handled, and all wait
for the next. Several receivers of ours are several children of one supervisor; of dramatiq and celery they are several
worker processes of one command.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from benchmarks.speed import plain
from benchmarks.speed.contest import Contest, Rig, Values
from benchmarks.speed.measuring import pss_of
from benchmarks.speed.programs import running
from benchmarks.speed.queues import consumers

NAME = "memory"
NUMBERS = (1, 2, 4, 8, 16)
ONE_COMMAND = (plain.DRAMATIQ, plain.CELERY_PREFORK)
"""Who runs several processes with one command, on one queue."""
SETTLED = 1.0
"""Seconds until a program that waits has given back what its start needed."""


def contests(rig: Rig) -> Iterable[Contest]:
    yield Contest("memory", {peer.name: partial(_measure, rig, peer) for peer in plain.ALL}, most_rounds=3)


def _measure(rig: Rig, peer: plain.Plain) -> dict[str, Values]:
    numbers = NUMBERS if peer is plain.OURS else (NUMBERS[0], NUMBERS[-1]) if peer in ONE_COMMAND else NUMBERS[:1]
    total = {number: _total(rig, peer, number) for number in numbers}
    values = {_case(number): {"pss_mib": mib} for number, mib in total.items()}
    least, most = min(total), max(total)
    if most > least:
        values["each further receiver"] = {"pss_mib": (total[most] - total[least]) / (most - least)}
    return values


def _case(number: int) -> str:
    return "1 receiver" if number == 1 else f"{number} receivers"


def _total(rig: Rig, peer: plain.Plain, number: int) -> float:
    with (
        plain.prepared(rig.url, peer, number if peer is plain.OURS else 1) as place,
        running(peer.command(number), place.environment) as program,
    ):
        program.wait(lambda: plain.is_first_handled(place), "the first event", 60)
        # Celery's master consumes for all of its processes.
        wanted = number if peer is plain.DRAMATIQ else 1
        for queue in place.queues:
            program.wait(partial(_has_consumers, rig.url, queue, wanted), "all of them consume", 60)
        time.sleep(SETTLED)
        return sum(map(pss_of, program.pids()))


def _has_consumers(url: str, queue: str, wanted: int) -> bool:
    return consumers(url, queue) >= wanted
