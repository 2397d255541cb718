"""A handler that computes for 200 µs in plain Python: how much of the process is left for it?

The bound is what the handler alone could do: one by the time that its work takes in the same process, measured just
before and just after, when no event is in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, one_case
from benchmarks.speed.measurement import consume
from benchmarks.speed.task import burn

NAME = "heavy handler"
SECONDS = 200e-6
COUNT = 4000
PEERS = (peers.OURS, peers.PIKA_SELECT, peers.PIKA_BLOCKING, peers.KOMBU, peers.DRAMATIQ_64, peers.AIO_PIKA)


def contests(rig: Rig) -> Iterable[Contest]:
    work = rounds_for(SECONDS)
    # All of them need about as long.
    yield one_case("200 µs", {peer.name: partial(consume, rig, peer, rig.count(COUNT), work=work) for peer in PEERS})


def rounds_for(seconds: float) -> int:
    """Of `burn`. The fastest of several tries: what else runs here makes it no heavier."""
    rounds = 1000
    tries = []
    for _ in range(200):
        before = time.perf_counter()
        burn(rounds)
        tries.append(time.perf_counter() - before)
    return round(rounds * seconds / min(tries))
