"""Files that survive whoever writes them: one line, one write, appended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path


class Clock:
    """Seconds since the soak began, the same in all of its processes."""

    def __init__(self, began: float) -> None:
        """`began`: time.monotonic() then, which all processes of a machine share on Linux."""
        self.began = began

    def now(self) -> float:
        return time.monotonic() - self.began


def append(path: Path, text: str) -> None:
    """`text` as lines at the end of the file. A SIGKILL leaves all of it or nothing, for it is one write(2)."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, text.encode() + b"\n")
    finally:
        os.close(file)


def read(folder: Path, pattern: str) -> Iterator[tuple[str, list[str]]]:
    """The words of each line of these files, and the name of the file."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_text().splitlines():
            yield path.name, line.split(" ")
