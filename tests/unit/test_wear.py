"""When a child has done enough: by events, age or memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.wear import Lifespan, Wear, resident_memory
from tests.waiting import wait_until


def wear(**lifespan: float) -> tuple[Wear, list[str]]:
    said: list[str] = []
    given_lifespan = Lifespan(**lifespan)  # type: ignore[arg-type]
    return Wear(given_lifespan, said.append), said


def test_without_limits_nobody_is_ever_worn() -> None:
    child, said = wear()
    for _ in range(10_000):
        child.event_done()
    child.time_passed()
    assert (child.is_worn, said) == (False, [])


def test_after_so_many_events_it_is_worn_and_says_so_once() -> None:
    child, said = wear(events=3)
    child.event_done()
    child.event_done()
    child.time_passed()
    assert (child.is_worn, said) == (False, [])
    child.event_done()
    assert (child.is_worn, said) == (True, ["3 events"])
    for _ in range(5):
        child.event_done()
        child.time_passed()
    assert said == ["3 events"]


def test_it_grows_old_without_an_event() -> None:
    young, said = wear(age=3600)
    young.time_passed()
    assert said == []
    child, said = wear(age=0.2)

    def grow_old() -> bool:
        child.time_passed()
        return child.is_worn

    wait_until(grow_old)
    [reason] = said
    assert re.fullmatch(r"\d+ s old", reason)


def test_it_is_worn_when_it_has_too_much_memory_between_events_or_when_idle() -> None:
    rss = resident_memory(os.getpid())
    assert rss is not None
    modest, modest_said = wear(rss=rss * 1000)
    for tell in (Wear.event_done, Wear.time_passed):

        def is_left_alone(tell: Callable[[Wear], None] = tell) -> bool:
            child, said = wear(rss=rss // 2)
            tell(child)
            return said == []

        # Not each time: this process may stand still for a second.
        wait_until(is_left_alone, what="nobody looks each time: it costs a system call")
        child, said = wear(rss=rss // 2)

        def look(tell: Callable[[Wear], None] = tell, child: Wear = child) -> bool:
            tell(child)
            return child.is_worn

        wait_until(look)
        [reason] = said
        number, words = reason.split(" ", 1)
        assert words == "MiB of memory"
        assert int(number) >= rss // 2 // 2**20
    modest.event_done()
    assert modest_said == []


def test_each_limit_alone_is_enough() -> None:
    child, said = wear(events=1, age=3600, rss=2**50)
    child.event_done()
    assert said == ["1 events"]


@given(
    st.none() | st.integers(1, 10**9),
    st.none() | st.floats(0.001, 1e9, allow_nan=False),
    st.none() | st.integers(1, 2**50),
)
def test_jitter_is_a_tenth_more_or_less_and_never_a_limit_of_nothing(
    events: int | None, age: float | None, rss: int | None
) -> None:
    found = Lifespan(events=events, age=age, rss=rss).jittered()
    for before, after in ((events, found.events), (age, found.age), (rss, found.rss)):
        if before is None:
            assert after is None
        else:
            assert after is not None
            assert 0.9 * before - 0.5 <= after <= 1.1 * before + 0.5
    assert found.events is None or found.events >= 1


def test_children_that_were_born_together_do_not_leave_together() -> None:
    lives = {Lifespan(events=10_000, age=3600.0, rss=2**30).jittered() for _ in range(20)}
    assert len({life.events for life in lives}) > 10
    assert len({life.age for life in lives}) > 10
    assert len({life.rss for life in lives}) > 10


def test_resident_memory_is_what_the_kernel_says() -> None:
    own = resident_memory(os.getpid())
    assert own is not None
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith("VmRSS:")]
    assert own == pytest.approx(int(line.split()[1]) * 1024, rel=0.2)
    pages = bytearray(50 * 2**20)
    pages[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(pages[:: os.sysconf("SC_PAGE_SIZE")])
    more = resident_memory(os.getpid())
    assert more is not None
    assert more - own > 40 * 2**20
    del pages


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert resident_memory(pid) is None
