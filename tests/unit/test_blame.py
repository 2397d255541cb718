"""The notes about events that were in hand when a consumer died: suspected, condemned, forgiven."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.oversight import Suspicion
from domain_events.supervisor.blame import ROWS, SIZE, Blame
from tests.waiting import wait_until

event_ids = st.text(max_size=300) | st.text(st.characters(codec=None), max_size=20)


def blame() -> Blame:
    return Blame(memoryview(bytearray(SIZE)))


def suspected(deaths: int, cause: str, stacks: str = "") -> Suspicion:
    return Suspicion(deaths=deaths, cause=cause, stacks=stacks, condemned=False)


def condemned(deaths: int, cause: str, stacks: str = "") -> Suspicion:
    return Suspicion(deaths=deaths, cause=cause, stacks=stacks, condemned=True)


def test_of_whom_nothing_is_noted_nothing_is_known() -> None:
    notes = blame()
    assert notes.judge("a") is None
    notes.note([], "SIGSEGV", "", 2)
    assert notes.judge("a") is None
    notes.note(["b"], "SIGSEGV", "", 2)
    assert notes.judge("a") is None


def test_one_alone_is_suspected_at_first_and_condemned_at_the_limit_with_the_last_cause() -> None:
    notes = blame()
    notes.note(["a"], "SIGSEGV", "stacks of the first", 3)
    assert notes.judge("a") == suspected(1, "SIGSEGV", "stacks of the first")
    notes.note(["a"], "exit 3", "", 3)
    assert notes.judge("a") == suspected(2, "exit 3")
    notes.note(["a"], "timeout 2.0s", "stacks of the last", 3)
    assert notes.judge("a") == condemned(3, "timeout 2.0s", "stacks of the last")


def test_a_limit_of_one_condemns_at_the_first_death() -> None:
    notes = blame()
    notes.note(["a"], "SIGKILL", "", 1)
    assert notes.judge("a") == condemned(1, "SIGKILL")


def test_without_a_limit_nobody_is_ever_condemned() -> None:
    notes = blame()
    for n in range(1, 50):
        notes.note(["a"], "SIGKILL", "", 0)
        assert notes.judge("a") == suspected(n, "SIGKILL")
    notes.note(["a", "b"], "SIGKILL", "", 0)
    assert notes.judge("a") == suspected(50, "SIGKILL")


def test_several_in_hand_are_suspected_however_often_and_the_next_death_alone_condemns() -> None:
    notes = blame()
    for _ in range(5):
        notes.note(["a", "b", "c"], "SIGSEGV", "", 2)
    for each in "abc":
        assert notes.judge(each) == suspected(1, "SIGSEGV")
    notes.note(["b"], "SIGSEGV", "", 2)
    assert notes.judge("b") == condemned(2, "SIGSEGV")
    assert notes.judge("a") == suspected(1, "SIGSEGV")


def test_the_same_event_twice_in_hand_is_one_event() -> None:
    notes = blame()
    notes.note(["a", "a"], "SIGSEGV", "", 1)
    assert notes.judge("a") == condemned(1, "SIGSEGV")


def test_who_is_forgiven_starts_anew_and_nobody_else_is_forgiven() -> None:
    notes = blame()
    for each in ("a", "b"):
        for _ in range(2):
            notes.note([each], "SIGSEGV", "", 2)
    notes.forgive("a")
    notes.forgive("unknown")
    assert notes.judge("a") is None
    assert notes.judge("b") == condemned(2, "SIGSEGV")
    notes.note(["a"], "exit 3", "", 2)
    assert notes.judge("a") == suspected(1, "exit 3")


def test_all_that_most_receivers_have_in_hand_at_a_time_is_remembered() -> None:
    notes = blame()
    ids = [f"id-{n}" for n in range(ROWS)]
    notes.note(ids, "SIGKILL", "stacks", 2)
    assert {notes.judge(each) for each in ids} == {suspected(1, "SIGKILL", "stacks")}


def test_of_more_the_newest_are_remembered() -> None:
    notes = blame()
    ids = [f"id-{n}" for n in range(ROWS + 10)]
    notes.note(ids, "SIGKILL", "", 2)
    assert [notes.judge(each) for each in ids[:10]] == [None] * 10
    assert None not in [notes.judge(each) for each in ids[10:]]


def test_the_oldest_makes_room_but_not_while_a_forgiven_one_could() -> None:
    notes = blame()
    for n in range(ROWS):
        notes.note([f"id-{n}"], "SIGKILL", "", 2)
    notes.forgive("id-500")
    notes.note(["new"], "SIGKILL", "", 2)
    assert notes.judge("id-0") == suspected(1, "SIGKILL")
    notes.note(["newer"], "SIGKILL", "", 2)
    assert notes.judge("id-0") is None
    assert notes.judge("id-1") == suspected(1, "SIGKILL")
    assert notes.judge("new") == notes.judge("newer") == suspected(1, "SIGKILL")


def test_a_suspect_keeps_its_place_when_it_dies_together_with_many_new_ones() -> None:
    notes = blame()
    notes.note(["a"], "SIGKILL", "", 3)
    notes.note([*(f"id-{n}" for n in range(ROWS - 1)), "a"], "SIGKILL", "", 3)
    assert notes.judge("a") == suspected(2, "SIGKILL")
    assert notes.judge("id-0") == suspected(1, "SIGKILL")


def test_stacks_of_older_deaths_are_lost_but_not_the_verdict() -> None:
    notes = blame()
    notes.note(["a"], "timeout 2.0s", "stacks of a", 1)
    for n in range(100):
        notes.note([f"id-{n}"], "SIGKILL", f"stacks of {n}", 1)
    assert notes.judge("a") == condemned(1, "timeout 2.0s")
    assert notes.judge("id-99") == condemned(1, "SIGKILL", "stacks of 99")


@given(event_id=event_ids, other=event_ids, stacks=st.text(max_size=200))
def test_any_id_can_be_noted(event_id: str, other: str, stacks: str) -> None:
    notes = blame()
    notes.note([event_id], "exit 3", stacks, 2)
    found = notes.judge(event_id)
    assert found is not None
    assert (found.deaths, found.stacks) == (1, stacks.encode(errors="replace").decode())
    if other.encode(errors="replace") != event_id.encode(errors="replace"):
        assert notes.judge(other) is None
    notes.forgive(event_id)
    assert notes.judge(event_id) is None


@pytest.mark.parametrize("text", ["x" * 100_000, "\u20ac" * 50_000, "\U0001f600" * 20_000, "\ud800" * 30_000])
def test_long_texts_are_cut(text: str) -> None:
    notes = blame()
    notes.note([text], text, text, 2)
    found = notes.judge(text)
    assert found is not None
    whole = text.encode(errors="replace").decode()
    assert len(found.cause.encode()) < 200
    assert 15_000 < len(found.stacks.encode()) <= 16 * 1024
    for shown in (found.cause, found.stacks):
        assert whole.startswith(shown.rstrip("\ufffd"))


@given(
    st.lists(
        st.tuples(st.just("die"), st.sets(st.integers(0, 9), min_size=1, max_size=4))
        | st.tuples(st.just("forgive"), st.integers(0, 9)),
        max_size=40,
    ),
    st.integers(0, 4),
)
def test_it_is_as_simple_as_a_count_for_each_event(
    steps: list[tuple[str, set[int]] | tuple[str, int]], limit: int
) -> None:
    """Against a dict, for as many events as there is room for."""
    notes = blame()
    counts: dict[int, tuple[int, bool]] = {}
    for what, who in steps:
        if isinstance(who, int):
            assert what == "forgive"
            notes.forgive(str(who))
            counts.pop(who, None)
            continue
        notes.note([str(each) for each in who], "SIGKILL", "", limit)
        for each in who:
            deaths = counts.get(each, (0, False))[0] + 1
            if len(who) > 1 and limit:
                deaths = max(1, min(deaths, limit - 1))
            counts[each] = (deaths, len(who) == 1 and 0 < limit <= deaths)
    for each in range(10):
        found = notes.judge(str(each))
        assert counts.get(each) == (None if found is None else (found.deaths, found.condemned))


# Read by others while the master writes


def read_enough(notes: Blame) -> str:
    """What a child saw that it should not have seen. It is done when it has found the innocent a thousand times."""
    seen = 0
    while seen < 1000:
        innocent = notes.judge("innocent")
        if innocent is not None:
            seen += 1
            if innocent.condemned or innocent.cause != "cause of innocent" or "guilty" in innocent.stacks:
                return f"a mixture: {innocent}"
        guilty = notes.judge("guilty")
        if guilty is None or not guilty.condemned or guilty.cause != "cause of guilty" or "other" in guilty.stacks:
            return f"not guilty: {guilty}"
    return ""


def test_who_reads_while_another_writes_never_gets_a_mixture() -> None:
    """The innocent are never condemned, the condemned never acquitted, and no stacks are those of another event."""
    notes = Blame(memoryview(mmap.mmap(-1, SIZE)))
    # Two rows are left, and the second is taken over again and again.
    notes.note([f"resident-{n}" for n in range(ROWS - 2)], "SIGKILL", "", 2)
    notes.note(["guilty"], "cause of guilty", "stacks of guilty", 1)
    readers = {}
    for _ in range(2):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, read_enough(notes).encode())
            os._exit(0)
        os.close(writer)
        readers[pid] = reader

    def write() -> bool:
        """Until both have ended."""
        notes.note(["innocent"], "cause of innocent", "stacks of innocent", 0)
        notes.note(["guilty"], "cause of guilty", "stacks of guilty", 1)
        notes.forgive("innocent")
        notes.note(["another"], "cause of another", "stacks of another", 1)
        notes.forgive("another")
        ended.update(pid for pid in readers.keys() - ended if os.waitpid(pid, os.WNOHANG)[0])
        return len(ended) == len(readers)

    ended = set[int]()
    try:
        wait_until(write, what="readers that have seen enough", pause=0)
    finally:
        for pid in readers.keys() - ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for reader in readers.values():
        with open(reader) as words:
            assert words.read() == ""


def test_a_row_that_is_never_written_to_its_end_holds_nobody_up() -> None:
    memory = mmap.mmap(-1, SIZE)
    notes = Blame(memoryview(memory))
    notes.note(["a"], "SIGKILL", "", 2)

    class Stopped(Exception):
        pass

    class Halting(Blame):
        """A master that is stopped in the middle."""

        def _set(self, row: int, word: int, value: int) -> None:
            super()._set(row, word, value)
            raise Stopped

    with pytest.raises(Stopped):
        Halting(memoryview(memory)).note(["a"], "SIGKILL", "", 2)
    assert notes.judge("a") is None
    notes.note(["a"], "SIGKILL", "", 2)
    assert notes.judge("a") == condemned(2, "SIGKILL")


def test_what_one_process_notes_another_reads() -> None:
    memory = mmap.mmap(-1, SIZE)
    notes = Blame(memoryview(memory))
    pid = os.fork()
    if pid == 0:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if notes.judge("a") == condemned(1, "SIGKILL", "stacks"):
                notes.forgive("a")
                os._exit(0)
        os._exit(1)
    notes.note(["a"], "SIGKILL", "stacks", 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert notes.judge("a") is None
