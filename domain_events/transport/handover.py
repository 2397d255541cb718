"""How deliveries get from the I/O thread to the thread that handles them, and back again in a drain."""

from __future__ import annotations

from collections import deque
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class HandOver(Generic[T]):
    """A queue for one reader. Each item is had by exactly one side: by `take`, or by `take_back`.

    Relies on deque.append and deque.popleft being atomic, as the documentation of collections.deque says.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._reader_waits = False

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, item: T) -> None:
        self._items.append(item)
        # One wake-up for many items: only a reader that found nothing needs one.
        if self._reader_waits:
            self._reader_waits = False
            self._bell.put(None)

    def take(self) -> T:
        """The oldest item; waits for one. Python's signal handlers run while it waits."""
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                pass
            self._reader_waits = True
            # An item that came before the flag was up rang no bell.
            if not self._items:
                self._bell.get()
            self._reader_waits = False

    def take_back(self) -> list[T]:
        """Everything that the reader has not taken, oldest first."""
        items = []
        while True:
            try:
                items.append(self._items.popleft())
            except IndexError:
                return items
