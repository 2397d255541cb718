"""Memory that master and children share: what a child notes down is readable after its death.

One file in memory for all slots: it costs one descriptor, which can be handed to a process that is no child of
the master. Nobody takes a lock: one that a killed child holds would never open again.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

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
