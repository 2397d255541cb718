"""What do 16 threads of one process gain, each of which sends one event after the other, confirmed?

All threads share what the library shares between them: ours a connection, bare pika one with a lock around it. The C
client has one thread, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, Values
from benchmarks.speed.measurement import publish

NAME = "publish from threads"
THREADS = 16
COUNT = 1600
PEERS = (peers.OURS, peers.PIKA_BLOCKING)


def contests(rig: Rig) -> Iterable[Contest]:
    count = max(rig.count(COUNT) // THREADS, 1) * THREADS
    # Both in the same turn: how much more 16 threads send than one is what matters.
    runs = {peer.name: partial(_one_and_many, rig, peer, count) for peer in PEERS}
    if rig.c_programs:
        runs[peers.C.name] = partial(_one, rig, count)
    yield Contest("1 and 16 threads", runs)


def _one_and_many(rig: Rig, peer: peers.Peer, count: int) -> dict[str, Values]:
    return {
        "1 thread": publish(rig, peer, "publish_threads", count),
        f"{THREADS} threads": publish(rig, peer, "publish_threads", count, threads=THREADS),
    }


def _one(rig: Rig, count: int) -> dict[str, Values]:
    values = publish(rig, peers.C, "publish_one", count)
    return {"1 thread": {name: value for name, value in values.items() if not name.endswith("_ms")}}
