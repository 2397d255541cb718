"""How fast is a queue that is full worked off?

All peers with the prefetch that is their default, or the one that is recommended; then ours and the bare ones with
several. Events/s and CPU from one event to the last, after a warm-up. Ours counts all its processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, one_case
from benchmarks.speed.measurement import consume

NAME = "consume"
COUNT = 36_000
"""For the fastest."""
PREFETCHES = (1, 4, 16, 64, 256)

ALL = (
    peers.OURS,
    peers.C_SINGLE,
    peers.C_BATCHED,
    peers.PIKA_SELECT,
    peers.PIKA_BLOCKING,
    peers.KOMBU,
    peers.DRAMATIQ,
    peers.DRAMATIQ_64,
    peers.CELERY_SOLO,
    peers.CELERY_PREFORK,
    peers.AIO_PIKA,
    peers.FASTSTREAM,
    peers.DOMAIN_EVENT_BROKER,
)
BARE = (peers.OURS, peers.C_SINGLE, peers.PIKA_SELECT)
WITH_QUORUM = (
    peers.OURS,
    peers.C_SINGLE,
    peers.C_BATCHED,
    peers.PIKA_SELECT,
    peers.DRAMATIQ,
    peers.DRAMATIQ_64,
    peers.AIO_PIKA,
)


def contests(rig: Rig) -> Iterable[Contest]:
    yield _contest(rig, "classic", ALL, COUNT)
    yield _contest(rig, "quorum", WITH_QUORUM, COUNT, queue_type="quorum")
    for prefetch in PREFETCHES[::4] if rig.is_quick else PREFETCHES:
        # Few at a time are slow for everybody.
        count = COUNT // 2 if prefetch > 16 else COUNT // 8 if prefetch > 1 else COUNT // 20
        yield _contest(rig, f"classic, prefetch {prefetch}", BARE, count, prefetch=prefetch)


def _contest(rig: Rig, case: str, chosen: Sequence[peers.Peer], count: int, **more: Any) -> Contest:
    return one_case(
        case,
        {
            peer.name: partial(consume, rig, peer, rig.count(count // peer.costs), **more)
            for peer in chosen
            if peer.module != "c" or rig.c_programs
        },
    )
