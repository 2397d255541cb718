"""Many events at a time, or one of them alone: how a suspect is handled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Gate:
    """Admits in the order of arrival: whoever comes after one that waits to be alone waits behind it.

    For threads and coroutines alike: nobody waits in here, who is not admitted at once is called when he is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._is_closed = False  # one is inside alone
        self._waiting: deque[tuple[bool, Callable[[], object]]] = deque()

    def enter(self, alone: bool) -> bool:
        """Whether you are inside now. If not, `queue`."""
        with self._lock:
            if self._is_closed or self._waiting or (alone and self._inside):
                return False
            self._inside += 1
            self._is_closed = alone
            return True

    def queue(self, alone: bool, admitted: Callable[[], object]) -> None:
        """`admitted` is called, perhaps in another thread and perhaps at once, when you are inside."""
        with self._lock:
            self._waiting.append((alone, admitted))
            calls = self._admit()
        for call in calls:
            call()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._is_closed = False
            calls = self._admit()
        for call in calls:
            call()

    def open(self) -> None:
        """Admit all that wait, for good: they will only see that there is nothing left to do."""
        with self._lock:
            calls = [call for _, call in self._waiting]
            self._inside += len(calls)
            self._waiting.clear()
        for call in calls:
            call()

    def _admit(self) -> list[Callable[[], object]]:
        admitted = []
        while self._waiting and not self._is_closed:
            alone, call = self._waiting[0]
            if alone and self._inside:
                break
            self._waiting.popleft()
            self._inside += 1
            self._is_closed = alone
            admitted.append(call)
        return admitted
