"""A lock that is given in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """For `with`. Not re-entrant.

    A `threading.Lock` goes to whoever is there first, and that is mostly the thread that has just given it back:
    a busy one keeps it from all others.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # until it is handed to us

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False
