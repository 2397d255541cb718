"""Memory that master and children share: what a child notes down is readable after its death.

One file in memory for all slots: it costs one descriptor, which can be handed to a process that is no child of
the master. Nobody takes a lock: one that a killed child holds would never open again.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from struct import Struct

CAPACITY = 256 * 1024 * 1024
"""Bytes of addresses, not of memory: a page costs nothing until somebody writes to it."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an arena, in bytes."""

    offset: int
    size: int


class Arena:
    """The memory itself. The master makes one and hands out regions; `Arena(fd)` is another process's view of it."""

    def __init__(self, fd: int | None = None) -> None:
        """Raises OSError."""
        if fd is None:
            fd = os.memfd_create("domain-events", os.MFD_CLOEXEC)
            os.ftruncate(fd, CAPACITY)
        self.fd = fd
        self._memory = memoryview(mmap.mmap(fd, CAPACITY))
        self._next = 0
        self._free: dict[int, list[Region]] = {}  # by size

    def allocate(self, size: int) -> Region:
        """At least `size` bytes, all zero. Raises MemoryError."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        used = self._free.get(size)
        if used:
            region = used.pop()
            self.view(region)[:] = bytes(size)
            return region
        if self._next + size > CAPACITY:
            raise MemoryError("no shared memory is left for another slot")
        region = Region(self._next, size)
        self._next += size
        return region

    def free(self, region: Region) -> None:
        """Nobody may write to it any more."""
        self._free.setdefault(region.size, []).append(region)

    def view(self, region: Region) -> memoryview:
        return self._memory[region.offset : region.offset + region.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Of one slot, over all of its children: so that they only ever grow."""

    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            handled=self.handled + other.handled,
            retried=self.retried + other.retried,
            dead_lettered=self.dead_lettered + other.dead_lettered,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """An event that a handler is busy with. `since`: seconds of the monotonic clock."""

    id: str
    since: float


_HANDLED, _RETRIED, _DEAD_LETTERED, _BEAT = range(4)  # in words of 8 bytes
_CELLS_AT = 64  # in bytes
_LENGTH_AT, _ID_AT = 8, 16  # in bytes, in a cell, which begins with the time since when its event is in hand
_CELL = 272
_LONGEST_ID = _CELL - _ID_AT  # RabbitMQ's limit for a message_id is 255
_write_id = Struct(f"=Q{_LONGEST_ID}s").pack_into  # its length, and the id


def record_size(concurrency: int) -> int:
    """Bytes for the notes of a child that handles so many events at a time."""
    return _CELLS_AT + concurrency * _CELL


class Record:
    """The notes of one slot: a cell for each event in hand, counters, and the last sign of life."""

    def __init__(self, view: memoryview, concurrency: int = 1) -> None:
        self._bytes = view
        self._words = view.cast("Q")  # an aligned word is written at once, never in halves
        # Each goes by the word that tells since when its event is in hand.
        self._cells = range(_CELLS_AT // 8, (_CELLS_AT + concurrency * _CELL) // 8, _CELL // 8)
        self._unused = deque(self._cells)
        self._lock = threading.Lock()  # between the threads of one child

    # In the child

    def begin(self, event_id: str) -> int:
        """This event is in hand now; gives the cell that `end` takes."""
        cell = self._unused.popleft()
        text = event_id.encode("utf-8", "replace")[:_LONGEST_ID]
        _write_id(self._bytes, 8 * cell + _LENGTH_AT, len(text), text)
        # Last: who dies in between leaves no event rather than a mixture of two.
        self._words[cell] = time.monotonic_ns()
        return cell

    def end(self, cell: int) -> None:
        self._words[cell] = 0
        self._unused.append(cell)

    def count_handled(self) -> None:
        with self._lock:
            self._words[_HANDLED] += 1

    def count_retried(self) -> None:
        self._count(_RETRIED)

    def count_dead_lettered(self) -> None:
        self._count(_DEAD_LETTERED)

    def beat(self) -> None:
        self._words[_BEAT] = time.monotonic_ns()

    def _count(self, what: int) -> None:
        with self._lock:
            self._words[what] += 1

    # In the master

    def clear(self) -> None:
        """For the next child: nothing is in hand, and no sign of life was given. The counters stay."""
        self._words[_BEAT] = 0
        for cell in self._cells:
            self._words[cell] = 0

    @property
    def last_beat(self) -> float | None:
        """Seconds of the monotonic clock; None before the first sign of life."""
        return self._words[_BEAT] / 1e9 or None

    @property
    def in_hand(self) -> list[InHand]:
        """Oldest first. Exact once the child is dead; before, it may be of a moment ago."""
        found = []
        for cell in self._cells:
            since = self._words[cell]
            if since:
                length_at = 8 * cell + _LENGTH_AT
                id_at = 8 * cell + _ID_AT
                text = bytes(self._bytes[id_at : id_at + self._words[length_at // 8]])
                found.append(InHand(id=text.decode(errors="replace"), since=since / 1e9))
        return sorted(found, key=lambda event: event.since)

    @property
    def counters(self) -> Counters:
        return Counters(
            handled=self._words[_HANDLED],
            retried=self._words[_RETRIED],
            dead_lettered=self._words[_DEAD_LETTERED],
        )
