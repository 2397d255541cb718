"""What is counted in shared memory: exact, for ever growing, and readable whoever is killed."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.measuring import (
    LATENESS,
    LATEST,
    LONGEST_ERROR_TYPE,
    MOST_ERROR_TYPES,
    OTHER,
    SECONDS,
    error_type,
    lateness,
)
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.tallies import SIZE, Counters, Histogram, Tally
from tests.waiting import wait_until


def memory() -> memoryview:
    return memoryview(bytearray(SIZE))


def named(name: str) -> BaseException:
    return type(name, (Exception,), {})()


def test_a_new_tally_has_counted_nothing() -> None:
    assert Tally(memory()).read() == Counters()


def test_what_is_counted_is_read() -> None:
    tally = Tally(memory())
    tally.started(time.time())
    tally.handled(0.5)
    tally.started(time.time())
    tally.failed(2.0, "ValueError")
    tally.retried()
    tally.failed(None, "MalformedEvent")
    tally.dead_lettered(dropped=False)
    tally.dead_lettered(dropped=True)
    tally.sent()
    tally.send_failed()
    counters = tally.read()
    assert (counters.handled, counters.retried, counters.dead_lettered, counters.dropped) == (1, 1, 2, 1)
    assert (counters.sent, counters.send_failed, counters.delivered) == (1, 1, 2)
    assert counters.failed == {"ValueError": 1, "MalformedEvent": 1}
    assert counters.seconds.sum == 2.5


def test_a_bucket_holds_its_bound_and_the_last_one_holds_the_rest() -> None:
    tally = Tally(memory())
    for bound in SECONDS:
        tally.handled(bound)
        tally.failed(bound * 1.0001, "E")
    assert tally.read().seconds.counts == (1, *[2] * (len(SECONDS) - 1), 1)


@given(st.lists(st.floats(0, 1e6, allow_nan=False)))
def test_every_duration_is_in_the_bucket_that_prometheus_would_choose(durations: list[float]) -> None:
    tally = Tally(memory())
    for seconds in durations:
        tally.handled(seconds)
    bounds = [-1.0, *SECONDS, float("inf")]
    wanted = [sum(low < s <= high for s in durations) for low, high in itertools.pairwise(bounds)]
    assert list(tally.read().seconds.counts) == wanted
    assert tally.read().seconds.sum == pytest.approx(sum(durations))


@given(st.floats(-1e300, 1e300) | st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_no_timestamp_spoils_a_sum(timestamp: float) -> None:
    tally = Tally(memory())
    tally.started(timestamp)
    histogram = tally.read().lateness
    assert 0.0 <= histogram.sum <= LATEST
    assert sum(histogram.counts) == 1


def test_lateness_is_never_below_zero_and_never_absurd() -> None:
    assert lateness(100.0, 103.5) == 3.5
    assert lateness(100.0, 99.0) == 0.0
    assert lateness(-1e300, 1e9) == LATEST
    assert lateness(float("nan"), 1e9) == 0.0


def test_the_next_child_goes_on_where_the_last_one_has_ended() -> None:
    shared = memory()
    first = Tally(shared)
    first.failed(0.1, "ValueError")
    first.failed(0.1, "KeyError")
    second = Tally(shared)
    second.failed(0.1, "KeyError")
    second.failed(0.1, "OSError")
    assert second.read().failed == first.read().failed == {"ValueError": 1, "KeyError": 2, "OSError": 1}


def test_of_forty_types_of_errors_those_that_come_late_are_counted_together() -> None:
    shared = memory()
    tally = Tally(shared)
    for n in range(40):
        tally.failed(0.0, f"Error{n}")
        tally.failed(0.0, "Error3")
    failed = tally.read().failed
    assert len(failed) == MOST_ERROR_TYPES + 1
    assert failed["Error3"] == 41
    assert failed[OTHER] == 40 - MOST_ERROR_TYPES
    Tally(shared).failed(0.0, "Error39")
    assert tally.read().failed[OTHER] == 40 - MOST_ERROR_TYPES + 1


def test_types_that_are_known_have_their_place_before_they_are_counted() -> None:
    tally = Tally(memory())
    tally.know([OTHER, *(f"Error{n}" for n in range(40))])
    assert tally.read() == Counters()
    tally.failed(0.0, "Error0")
    tally.failed(0.0, "New")
    assert tally.read().failed == {"Error0": 1, OTHER: 1}


def test_hostile_names_of_errors_are_no_labels() -> None:
    assert error_type(ValueError()) == "ValueError"
    assert error_type(None) == "ConsumerDied"
    assert error_type(named("Ä" * (LONGEST_ERROR_TYPE // 2))) == "Ä" * (LONGEST_ERROR_TYPE // 2)
    for name in ("", "x" * (LONGEST_ERROR_TYPE + 1), "a\nb", "\u202e"):
        assert error_type(named(name)) == OTHER


# Python makes no class whose name has others.
@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=90), max_size=60))
def test_against_a_dict(names: list[str]) -> None:
    tally, wanted = Tally(memory()), Counter[str]()
    for name in names:
        label = error_type(named(name))
        is_full = len(set(wanted) - {OTHER}) == MOST_ERROR_TYPES
        tally.failed(None, label)
        wanted[label if label in wanted or not is_full else OTHER] += 1
    assert tally.read().failed == wanted
    assert tally.read().seconds == Counters().seconds


def test_sums_over_children() -> None:
    total = Counters(handled=1, failed={"A": 1, "B": 2}) + Counters(handled=10, retried=2, failed={"B": 3, OTHER: 1})
    assert total == Counters(handled=11, retried=2, failed={"A": 1, "B": 5, OTHER: 1})
    late = Histogram(counts=(1, 2), sum=0.5) + Histogram(counts=(10, 20), sum=1.0)
    assert late == Histogram(counts=(11, 22), sum=1.5)


def test_all_bounds_are_in_order_and_last_long_enough() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))
    assert list(LATENESS) == sorted(set(LATENESS))
    assert LATENESS[-1] == 3600.0, "the longest delay of a Backoff, unless one asks for more"


def test_what_is_read_while_a_child_counts_and_after_its_sigkill_never_goes_down() -> None:
    arena = Arena()
    region = arena.allocate(SIZE)
    tally = Tally(arena.view(region))
    seen = Counters()

    def look() -> Counters:
        nonlocal seen
        before, seen = seen, tally.read()
        assert seen.handled >= before.handled
        assert all(now >= then for now, then in zip(seen.seconds.counts, before.seconds.counts, strict=True))
        assert seen.seconds.sum >= before.seconds.sum
        assert all(seen.failed[name] >= n for name, n in before.failed.items())
        return seen

    for child in range(10):
        start = look().handled
        pid = os.fork()
        if pid == 0:
            mine = Tally(Arena(os.dup(arena.fd)).view(region))
            while True:
                for n in range(len(SECONDS)):
                    mine.handled(SECONDS[n])
                    mine.failed(0.0, f"Error{child}")
        try:
            wait_until(lambda: look().handled > start + 50, 30, pause=0.001)  # noqa: B023
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert set(look().failed) == {f"Error{n}" for n in range(child + 1)}
    os.close(arena.fd)
