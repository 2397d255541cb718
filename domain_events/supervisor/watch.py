"""For --watch: whether the application's own source files have changed."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

INTERVAL = 0.5
"""Seconds between two looks."""


def source_directories() -> list[str]:
    """Where the imported modules of the application lie: not the standard library, not what is installed."""
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not _is_installed(file):
            found.add(os.path.dirname(os.path.abspath(file)))
    return sorted(found)


def _is_installed(file: str) -> bool:
    path = Path(file).resolve()
    return any(path.is_relative_to(folder) for folder in _INSTALLED) or "site-packages" in path.parts


_INSTALLED = tuple(
    Path(folder).resolve()
    for folder in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if folder
)

Stamps = Mapping[str, tuple[int, int]]


def stamps(directories: Iterable[str]) -> Stamps:
    """Time of change and size of each Python file in these directories: also of new ones."""
    found: dict[str, tuple[int, int]] = {}
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.endswith(".py") and entry.is_file():
                        stat = entry.stat()
                        found[entry.path] = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            continue  # gone, for the moment or for ever: that is a change as well
    return found


class Watch:
    """Says when files have changed, once they have been left alone for one look."""

    def __init__(self, directories: Iterable[str], now: float) -> None:
        self._directories = set(directories)
        self._seen = stamps(self._directories)
        self._before = self._seen
        self._changed = False
        self.due = now + INTERVAL

    def add(self, directories: Iterable[str]) -> None:
        """Those of newer code. None is left out again: broken code may have moved."""
        new = set(directories) - self._directories
        if new:
            self._directories |= new
            self._seen = {**self._seen, **stamps(new)}

    def look(self, now: float) -> list[str]:
        """The files that have changed; empty while nothing has, or while somebody still writes."""
        if now < self.due:
            return []
        self.due = now + INTERVAL
        seen = stamps(self._directories)
        if seen != self._seen:
            self._before = self._before if self._changed else self._seen
            self._changed = True
            self._seen = seen
            return []
        if not self._changed:
            return []
        self._changed = False
        return sorted(path for path in {*seen, *self._before} if seen.get(path) != self._before.get(path))
