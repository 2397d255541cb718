"""How long does it take to send one event? From making it to the broker's confirm, one after the other.

domain-event-broker and nothing else has no confirms: it returns when the event is written to the socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, one_case
from benchmarks.speed.measurement import publish

NAME = "publish one by one"
COUNT = 1200

CONFIRMED = (
    peers.OURS,
    peers.C,
    peers.PIKA_BLOCKING,
    peers.KOMBU,
    peers.DRAMATIQ,
    peers.CELERY_SOLO,
    peers.AIO_PIKA,
    peers.FASTSTREAM,
)
NAMES = {peers.CELERY_SOLO: "celery"}
"""Where the way it consumes says nothing."""


def contests(rig: Rig) -> Iterable[Contest]:
    runs = {
        NAMES.get(peer, peer.name): partial(publish, rig, peer, "publish_one", rig.count(COUNT))
        for peer in CONFIRMED
        if peer.module != "c" or rig.c_programs
    }
    broker = peers.DOMAIN_EVENT_BROKER
    runs[f"{broker.name}, no confirms"] = partial(publish, rig, broker, "publish_one", rig.count(COUNT // 6), warmup=10)
    yield one_case("confirmed", runs)
