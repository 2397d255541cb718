"""What the handlers of all peers do: note the call."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

DELAY = 0.5
"""Seconds after which a failed event is to be handled again."""

URL = "AMQP_URL"
QUEUE = "BENCHMARK_QUEUE"
NOTES = "BENCHMARK_NOTES"
"""Environment: the file of the notes."""


@dataclass(frozen=True, slots=True)
class Call:
    """Of a handler. `at` is `time.monotonic()`, which all processes of a machine share on Linux."""

    event: int
    at: float


def note(event: int) -> None:
    """The handler of `event` is called now. One write(2) for each call: some µs, the same for all peers."""
    global _file
    now = time.monotonic()
    if _file is None:
        _file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_file, f"{event} {now!r}\n".encode())


def read(path: Path) -> list[Call]:
    """All calls so far, as they were noted."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written
    return [Call(int(event), float(at)) for event, at in map(str.split, whole.splitlines())]


_file: int | None = None
