"""How fast can many events be sent, all confirmed? By those that can have several under way: all have 1000.

The C client sends two AMQP properties, and in a row of its own the six that our events have: the broker reads them all.

What waits for each confirm before it sends the next event (pika's BlockingConnection, kombu, dramatiq, celery) has
nothing to show here that publishing one by one does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from benchmarks.speed import peers
from benchmarks.speed.contest import Contest, Rig, one_case
from benchmarks.speed.measurement import publish

NAME = "publish many"
COUNT = 16_000
PEERS = {peers.OURS: 1, peers.C: 1, peers.C_ALIKE: 1, peers.PIKA_SELECT: 1, peers.AIO_PIKA: 4, peers.FASTSTREAM: 4}
"""And how many times fewer they get."""


def contests(rig: Rig) -> Iterable[Contest]:
    yield one_case(
        "pipelined",
        {
            peer.name: partial(publish, rig, peer, "publish_many", rig.count(COUNT // costs))
            for peer, costs in PEERS.items()
            if peer.module != "c" or rig.c_programs
        },
    )
