"""Memory of a master and its children: regions of one file."""

from __future__ import annotations

import mmap
import os

import pytest

from domain_events.supervisor.shm import CAPACITY, Arena


def test_regions_do_not_overlap_are_zero_and_begin_on_a_page() -> None:
    arena = Arena()
    regions = [arena.allocate(size) for size in (1, 100, mmap.PAGESIZE, mmap.PAGESIZE + 1)]
    for n, region in enumerate(regions, 1):
        assert region.offset % mmap.PAGESIZE == 0
        assert bytes(arena.view(region)) == bytes(region.size)
        arena.view(region)[:] = bytes([n]) * region.size
    for n, region in enumerate(regions, 1):
        assert set(arena.view(region)) == {n}
    os.close(arena.fd)


def test_what_was_freed_is_given_again_and_is_zero() -> None:
    arena = Arena()
    first = arena.allocate(100)
    arena.view(first)[:] = b"x" * first.size
    arena.free(first)
    assert arena.allocate(50_000) != first
    again = arena.allocate(200)
    assert again == first
    assert set(arena.view(again)) == {0}
    os.close(arena.fd)


def test_when_it_is_full_it_says_so_and_what_is_freed_helps() -> None:
    arena = Arena()
    arena.allocate(CAPACITY - mmap.PAGESIZE)
    small = arena.allocate(1)
    with pytest.raises(MemoryError, match="no shared memory is left"):
        arena.allocate(1)
    arena.free(small)
    assert arena.allocate(1) == small
    os.close(arena.fd)
