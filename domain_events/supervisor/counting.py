"""Counters for several threads: exact. One of them is for signal handlers too, and nobody waits for it."""

from __future__ import annotations

import threading
from itertools import count


class Counter:
    """Counts without a lock, also when a signal handler that counts interrupts the counting.

    `next` of an `itertools.count` is one step for the interpreter. It is also the only way to see the value,
    so the looks are counted and taken off.
    """

    def __init__(self) -> None:
        self._steps = count()
        self._looks = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        next(self._steps)

    def value(self) -> int:
        """How many there were. Not for signal handlers."""
        with self._lock:
            steps = next(self._steps) - self._looks
            self._looks += 1
            return steps


class Sums:
    """Numbers by name."""

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, name: str, n: int) -> None:
        with self._lock:
            self._sums[name] = self._sums.get(name, 0) + n

    def values(self) -> dict[str, int]:
        with self._lock:
            return dict(self._sums)
