"""How long after it was sent is an event with the handler, when there is little to do?

200 events a second, sent by one and the same program to all who read any JSON; dramatiq and celery have formats of
their own, and send them themselves. No confirms, so that nothing but the event is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, one_case
from benchmarks.speed.measurement import latency

NAME = "latency"
RATE = 200
SECONDS = 2

PEERS = (
    peers.OURS,
    peers.C,
    peers.PIKA_SELECT,
    peers.PIKA_BLOCKING,
    peers.KOMBU,
    peers.DRAMATIQ,
    peers.CELERY_SOLO,
    peers.CELERY_PREFORK,
    peers.AIO_PIKA,
    peers.FASTSTREAM,
    peers.DOMAIN_EVENT_BROKER,
)


def contests(rig: Rig) -> Iterable[Contest]:
    count = rig.count(RATE * SECONDS)
    yield one_case(
        f"{RATE} events/s",
        {
            peer.name: partial(latency, rig, peer, peer if peer.fills else peers.PIKA_BLOCKING, count, RATE)
            for peer in PEERS
            if peer.module != "c" or rig.c_programs
        },
    )
