"""What was measured on and with: written beside the results."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.speed.broker import server_version
from benchmarks.speed.contest import Rig
from benchmarks.speed.results import MACHINE

PACKAGES = (
    "domain-events",
    "pika",
    "dramatiq",
    "celery",
    "kombu",
    "amqp",
    "aio-pika",
    "aiormq",
    "faststream",
    "domain-event-broker",
)


Facts = dict[str, object]


def write(folder: Path, facts: Facts) -> None:
    (folder / MACHINE).write_text(json.dumps(facts, indent=1) + "\n")


def facts(rig: Rig, *, rounds: int) -> Facts:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "quick": rig.is_quick,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "load average at start": os.getloadavg()[0],
        "python": platform.python_version(),
        "rabbitmq": server_version(rig.url),
        "broker's CPU": "measured" if rig.broker_pid else "not measured: the broker is not a process of this machine",
        "C client": "librabbitmq" if rig.c_programs else "left out: no C compiler or no librabbitmq",
        "packages": {name: version(name) for name in PACKAGES},
    }


def facts_afterwards(minutes: float, *, was_interrupted: bool) -> Facts:
    """A load that is much above the one at the start, or above 2 or so of ours, tells that others were at work."""
    return {
        "minutes": minutes,
        "load average at end": os.getloadavg()[0],
        **({"interrupted": True} if was_interrupted else {}),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
