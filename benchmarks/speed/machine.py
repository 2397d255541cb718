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


def write(folder: Path, rig: Rig, *, rounds: int) -> None:
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": 1 if rig.is_quick else rounds,
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
    (folder / MACHINE).write_text(json.dumps(found, indent=1) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
