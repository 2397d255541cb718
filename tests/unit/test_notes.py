"""What a child notes down in shared memory, and its master reads, also after a SIGKILL."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.notes import Record, record_size
from domain_events.supervisor.shm import Arena, Region
from domain_events.supervisor.tallies import Counters
from tests.waiting import wait_until


def record(concurrency: int = 1) -> Record:
    return Record(memoryview(bytearray(record_size(concurrency))), concurrency)


def ids(of: Record) -> list[str]:
    return [event.id for event in of.in_hand]


# Events in hand


def test_a_new_record_says_nothing() -> None:
    fresh = record(3)
    assert fresh.in_hand == []
    assert fresh.last_beat is None
    assert fresh.counters == Counters()


def test_an_event_is_in_hand_from_its_begin_to_its_end_and_since_when_is_known() -> None:
    notes = record()
    before = time.monotonic()
    cell = notes.begin("a")
    after = time.monotonic()
    [found] = notes.in_hand
    assert found.id == "a"
    assert before - 1e-6 <= found.since <= after + 1e-6
    notes.end(cell)
    assert notes.in_hand == []


def test_several_are_in_hand_oldest_first_whatever_cell_they_have() -> None:
    notes = record(3)
    a, b = notes.begin("a"), notes.begin("b")
    notes.end(a)
    notes.begin("c")
    notes.begin("d")
    assert ids(notes) == ["b", "c", "d"]
    notes.end(b)
    assert ids(notes) == ["c", "d"]


def test_a_shorter_id_after_a_longer_one_has_nothing_of_it() -> None:
    notes = record()
    notes.end(notes.begin("a long id that was here before"))
    notes.begin("short")
    assert ids(notes) == ["short"]


def test_ids_as_long_as_rabbitmq_lets_them_be_are_kept_whole() -> None:
    notes = record(2)
    notes.begin("x" * 255)
    notes.begin("\u20ac" * 85)  # 255 bytes
    assert ids(notes) == ["x" * 255, "\u20ac" * 85]


def test_a_neighbour_is_not_overwritten_by_an_id_that_is_too_long() -> None:
    notes = record(3)
    a, b, c = notes.begin("a"), notes.begin("b"), notes.begin("c")
    notes.end(b)
    assert notes.begin("y" * 10_000) == b
    assert [event.id for event in sorted(notes.in_hand, key=lambda event: event.id)] == ["a", "c", "y" * 256]
    notes.end(a)
    notes.end(c)
    assert ids(notes) == ["y" * 256]


@given(st.lists(st.text(st.characters(codec=None), max_size=80), min_size=1, max_size=5))
def test_any_text_is_read_as_a_log_may_show_it(texts: list[str]) -> None:
    notes = record(len(texts))
    for text in texts:
        notes.begin(text)
    assert ids(notes) == [text.encode(errors="replace").decode() for text in texts]


@given(st.lists(st.integers(0, 4), max_size=60))
def test_cells_are_had_by_one_event_at_a_time(steps: list[int]) -> None:
    """Against a dict: each number begins the event if it is not in hand, and ends it if it is."""
    notes, cells = record(5), dict[int, int]()
    for n in steps:
        if n in cells:
            notes.end(cells.pop(n))
        else:
            cells[n] = notes.begin(str(n))
        assert len(set(cells.values())) == len(cells)
        assert ids(notes) == [str(each) for each in cells]


def test_the_next_child_begins_with_nothing_in_hand_but_the_counts_of_the_slot_go_on() -> None:
    memory = memoryview(bytearray(record_size(2)))
    notes = Record(memory, 2)
    notes.begin("a")
    notes.beat()
    notes.tally.handled(0.1)
    Record(memory, 2).clear()
    assert (notes.in_hand, notes.last_beat) == ([], None)
    second = Record(memory, 2)
    second.tally.retried()
    second.tally.dead_lettered(dropped=False)
    second.begin("b")
    second.begin("c")
    counters = notes.counters
    assert (counters.handled, counters.retried, counters.dead_lettered) == (1, 1, 1)
    assert ids(notes) == ["b", "c"]


def test_no_cell_is_lost_between_threads() -> None:
    notes = record(4)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for n in range(2_000):
            notes.end(notes.begin(str(n)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notes.in_hand == []
    assert len({notes.begin("x") for _ in range(4)}) == 4, "all cells are free again"


def test_a_sign_of_life_is_of_now() -> None:
    notes = record()
    before = time.monotonic()
    notes.beat()
    assert notes.last_beat is not None
    assert before - 1e-6 <= notes.last_beat <= time.monotonic() + 1e-6


# Between processes


def child_of(arena: Arena, region: Region) -> int:
    """A process that begins and ends events without a pause; `a...` and `b...` in turns."""
    pid = os.fork()
    if pid:
        return pid
    notes = Record(Arena(os.dup(arena.fd)).view(region))
    try:
        while True:
            for text in ("a" * 200, "b" * 100):
                cell = notes.begin(text)
                notes.tally.handled(0.1)
                notes.beat()
                notes.end(cell)
    finally:
        os._exit(1)


def test_what_is_read_while_a_child_writes_and_after_its_sigkill_is_no_mixture() -> None:
    arena = Arena()
    region = arena.allocate(record_size(1))
    notes = Record(arena.view(region))
    for _ in range(20):
        before = notes.counters.handled
        notes.clear()
        pid = child_of(arena, region)
        try:
            wait_until(lambda: notes.counters.handled > before + 50, 30, pause=0.001)  # noqa: B023
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        # Exact once it is dead.
        assert ids(notes) in ([], ["a" * 200], ["b" * 100])
        assert notes.last_beat is not None
    os.close(arena.fd)


def test_it_costs_addresses_and_no_memory() -> None:
    arena = Arena()
    for _ in range(200):
        Record(arena.view(arena.allocate(record_size(1)))).beat()
    # Blocks of 512 bytes that the file really has.
    assert os.fstat(arena.fd).st_blocks * 512 <= 201 * mmap.PAGESIZE
    os.close(arena.fd)


def test_another_process_sees_the_same_memory_by_its_descriptor_alone() -> None:
    arena = Arena()
    region = arena.allocate(record_size(1))
    other = Arena(os.dup(arena.fd))
    Record(other.view(region)).begin("seen from there")
    assert ids(Record(arena.view(region))) == ["seen from there"]
    assert not os.get_inheritable(arena.fd)
    os.close(other.fd)
    os.close(arena.fd)
