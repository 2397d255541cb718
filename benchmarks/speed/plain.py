"""The plain programs: how each is run, and a queue for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed import broker
from benchmarks.speed.contest import Failed, last_words
from benchmarks.speed.pouring import pour
from benchmarks.speed.programs import ROOT

FOLDER = ROOT / "benchmarks" / "speed" / "peers" / "plain"
ENDINGS = ("", ":dead", ".DQ", ".XQ")
"""Of the names of the queues that they make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    name: str
    """In the tables."""
    arguments: tuple[str, ...]
    """What Python runs to consume; "{n}" stands for the number of processes."""
    before: tuple[str, ...] = ()
    """What Python runs before: it makes the queue; empty: we do that."""
    sends: bool = False
    """`before` puts one event into it as well; else we do that."""

    def command(self, processes: int = 1) -> list[str]:
        return [argument.replace("{n}", str(processes)) for argument in self.arguments]


def _file(name: str) -> str:
    return str(FOLDER / f"{name}_app.py")


_CELERY = ("-m", "celery", "--quiet", "-A", "celery_app", "worker", "--without-gossip", "--without-mingle")
_DECLARE = (_file("ours"), "declare")

OURS = Plain(name="domain-events", arguments=("bin/domain-events-supervisor", "ours_app"), before=_DECLARE)
OURS_ALONE = Plain(name="domain-events, start_consuming", arguments=(_file("ours"), "consume"), before=_DECLARE)
PIKA_SELECT = Plain(name="bare pika, SelectConnection", arguments=(_file("pika_select"),))
PIKA_BLOCKING = Plain(name="bare pika, BlockingConnection", arguments=(_file("pika_blocking"),))
KOMBU = Plain(name="kombu", arguments=(_file("kombu"),))
AIO_PIKA = Plain(name="aio-pika", arguments=(_file("aio_pika"),))
FASTSTREAM = Plain(name="faststream", arguments=(_file("faststream"),))
DOMAIN_EVENT_BROKER = Plain(name="domain-event-broker", arguments=(_file("domain_event_broker"),))
DRAMATIQ = Plain(
    name="dramatiq",
    arguments=("-m", "dramatiq", "dramatiq_app", "--processes", "{n}", "--threads", "1"),
    before=(_file("dramatiq"),),
    sends=True,
)
CELERY_SOLO = Plain(name="celery, solo", arguments=(*_CELERY, "--pool", "solo"), before=(_file("celery"),), sends=True)
CELERY_PREFORK = Plain(
    name="celery, prefork",
    arguments=(*_CELERY, "--pool", "prefork", "--concurrency", "{n}"),
    before=(_file("celery"),),
    sends=True,
)
ALL = (
    OURS,
    OURS_ALONE,
    PIKA_SELECT,
    PIKA_BLOCKING,
    KOMBU,
    DRAMATIQ,
    CELERY_SOLO,
    CELERY_PREFORK,
    AIO_PIKA,
    FASTSTREAM,
    DOMAIN_EVENT_BROKER,
)


@dataclass(frozen=True, slots=True)
class Place:
    """For one measurement."""

    environment: dict[str, str]
    queues: Sequence[str]
    first: Path
    """Gets the `time.monotonic()` of the first event that is handled, and a line end."""


@contextmanager
def prepared(url: str, plain: Plain, receivers: int = 1) -> Iterator[Place]:
    """Queues with one event in the first of them, gone when the block ends. Raises Failed."""
    name = f"plain-{uuid.uuid4().hex[:8]}"
    queues = [name] if receivers == 1 else [f"{name}-{number}" for number in range(receivers)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "AMQP_URL": url,
            "BENCH_QUEUE": ",".join(queues),
            "BENCH_FIRST": str(Path(folder) / "first"),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, FOLDER))),
        }
        try:
            if plain.before:
                _run(plain.before, environment)
            else:
                broker.declare(url, name)
            if not plain.sends:
                pour(url, queues[0], 1)
            yield Place(environment, queues, Path(folder) / "first")
        finally:
            broker.delete(url, *(queue + ending for queue in queues for ending in ENDINGS))


def _run(arguments: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{arguments} ended with {done.returncode}: {last_words(done)}")


def is_first_handled(place: Place) -> bool:
    return place.first.exists() and place.first.read_text().endswith("\n")
