"""Who is measured: each a program that does its task by the library's public API, as its documentation recommends.

One process, one measurement: `python -m benchmarks.speed.peers.NAME VERB` reads a `benchmarks.speed.task.Task` and
writes a report. What runs a consumer may be the library's own command instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PACKAGE = "benchmarks.speed.peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    """In the tables."""
    module: str
    consumer: tuple[str, ...] = ()
    """What Python runs to consume; empty: the module, with "consume"."""
    declares: bool = False
    """Makes its own queue, by the verb "declare"; else it takes one without arguments."""
    fills: bool = False
    """Has a message format of its own and fills its queue, by the verb "fill"."""
    costs: int = 1
    """How many times fewer events than the fast ones it gets in the same time, about."""
    options: tuple[tuple[str, str], ...] = ()
    """More environment variables."""

    @property
    def consuming(self) -> tuple[str, ...]:
        return self.consumer or ("-m", f"{PACKAGE}.{self.module}", "consume")


OURS = Peer(
    name="domain-events",
    module="ours",
    consumer=("bin/domain-events-supervisor", f"{PACKAGE}.ours"),
    declares=True,
)
C = Peer(name="C", module="c")
C_ALIKE = Peer(name="C, our properties", module="c", options=(("BENCH_OUR_PROPERTIES", "1"),))
C_SINGLE = Peer(name="C, single acks", module="c")
C_BATCHED = Peer(name="C, one ack for 64", module="c", options=(("BENCH_ACK_EVERY", "64"),))
PIKA_SELECT = Peer(name="bare pika, SelectConnection", module="pika_select", costs=3)
PIKA_BLOCKING = Peer(name="bare pika, BlockingConnection", module="pika_blocking", costs=6)
DRAMATIQ = Peer(
    name="dramatiq",
    module="dramatiq",
    consumer=("-m", "dramatiq", f"{PACKAGE}.dramatiq", "--processes", "1", "--threads", "1"),
    declares=True,
    fills=True,
    costs=24,
)
DRAMATIQ_64 = replace(DRAMATIQ, name="dramatiq, prefetch 64", options=(("dramatiq_queue_prefetch", "64"),), costs=14)
_CELERY = ("-m", "celery", "--quiet", "-A", f"{PACKAGE}.celery", "worker", "--without-gossip", "--without-mingle")
CELERY_SOLO = Peer(
    name="celery, solo",
    module="celery",
    consumer=(*_CELERY, "--pool", "solo"),
    declares=True,
    fills=True,
    costs=24,
)
CELERY_PREFORK = Peer(
    name="celery, prefork",
    module="celery",
    consumer=(*_CELERY, "--pool", "prefork", "--concurrency", "1"),
    declares=True,
    fills=True,
    costs=48,
)
AIO_PIKA = Peer(name="aio-pika", module="aio_pika", costs=20)
FASTSTREAM = Peer(name="faststream", module="faststream", costs=24)
KOMBU = Peer(name="kombu", module="kombu", costs=12)
DOMAIN_EVENT_BROKER = Peer(name="domain-event-broker", module="domain_event_broker", costs=40)
