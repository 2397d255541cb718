"""A counter for threads and signal handlers: exact, and nobody waits."""

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
