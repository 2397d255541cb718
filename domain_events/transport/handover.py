"""How deliveries get from the I/O thread to the threads that handle them, and back again in a drain."""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from domain_events.transport.subscription import Delivery

T = TypeVar("T")


class Lane(Protocol):
    """What the I/O thread sees of a hand-over. Each delivery is had by exactly one side: a reader, or `take_back`."""

    def __bool__(self) -> bool:
        """Whether something waits in it."""

    def put(self, delivery: Delivery, /) -> None: ...

    def take_back(self) -> list[Delivery]:
        """Everything that no reader has taken, oldest first."""

    def end(self) -> None:
        """Nothing comes any more: readers end. Any number of times."""


def take_all(items: deque[T]) -> list[T]:
    """Empties it, oldest first, while others may put in and take out."""
    taken = []
    while True:
        try:
            taken.append(items.popleft())
        except IndexError:
            return taken


class HandOver(Generic[T]):
    """A queue for one reader. Each item is had by exactly one side: by `take`, or by `take_back`.

    Relies on deque.append and deque.popleft being atomic, as the documentation of collections.deque says.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._reader_waits = False
        self._is_over = False

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, item: T, /) -> None:
        self._items.append(item)
        # One wake-up for many items: only a reader that found nothing needs one.
        if self._reader_waits:
            self._reader_waits = False
            self._bell.put(None)

    def next(self) -> T | None:
        """The oldest item, if there is one."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def take(self) -> T | None:
        """The oldest item; waits for one. None when it has ended. Python's signal handlers run while it waits."""
        while True:
            if (item := self.next()) is not None:
                return item
            self._reader_waits = True
            is_over = self._is_over
            # An item that came before the flag was up rang no bell, nor did the end.
            if not self._items:
                if is_over:
                    return None
                self._bell.get()
            self._reader_waits = False

    def take_back(self) -> list[T]:
        """Everything that the reader has not taken, oldest first."""
        return take_all(self._items)

    def end(self) -> None:
        self._is_over = True
        if self._reader_waits:
            self._reader_waits = False
            self._bell.put(None)


class SharedHandOver(Generic[T]):
    """A queue for any number of readers: as HandOver, but with a wake-up for each item."""

    def __init__(self) -> None:
        self._items: SimpleQueue[T | None] = SimpleQueue()
        self._is_over = False

    def __bool__(self) -> bool:
        return not self._items.empty()

    def put(self, item: T, /) -> None:
        self._items.put(item)

    def take(self) -> T | None:
        """The oldest item; waits for one. None when it has ended."""
        item = self._items.get()
        if item is None:
            self._items.put(None)  # for the next reader
        return item

    def take_back(self) -> list[T]:
        """Everything that no reader has taken, oldest first."""
        items = []
        while True:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if item is not None:
                items.append(item)
        if self._is_over:
            self._items.put(None)
        return items

    def end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._items.put(None)
