"""The state table of a slot, without a process: what each event means in each state."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.bucket import full_bucket
from domain_events.supervisor.exits import Ending
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.slots import (
    DUMP_TIME,
    RESTING,
    Action,
    Booted,
    Consuming,
    Event,
    Exited,
    ForceAsked,
    Forked,
    ForkFailed,
    LastExit,
    Rules,
    Slot,
    State,
    StopAsked,
    TimePassed,
    Waiting,
    give_up_at,
)
from domain_events.supervisor.status import is_ready, status_line
from domain_events.supervisor.transitions import TABLE, step

RULES = Rules(grace=30, kill_after=5, backoff=Backoff(base=0.5, cap=60), stable_after=30, boot_timeout=60)
CRASH = Exited(exit=LastExit(ending=Ending(code=70), at=1.0), spread=0.5)
SEGFAULT = Exited(exit=LastExit(ending=Ending(signal=11), at=1.0, in_flight="event-1"), spread=0.5)


def after(*events: tuple[float, Event], slot: Slot | None = None) -> Slot:
    """A slot after these events, each at its time."""
    slot = slot or Slot(receiver="printer", index=0)
    for now, event in events:
        slot, _ = step(slot, event, now, RULES)
    return slot


def running(start: float = 0.0) -> Slot:
    return after((start, Forked(42)), (start, Booted()), (start, Consuming()))


def test_a_new_slot_waits_for_its_first_fork_and_is_shown_as_starting() -> None:
    slot = Slot(receiver="printer", index=1)
    assert (slot.name, slot.state, slot.state.shown) == ("printer#1", State.PENDING, "starting")


def test_the_way_to_consuming() -> None:
    slot = after((1, Forked(42)))
    assert (slot.state, slot.pid, slot.booted) == (State.STARTING, 42, False)
    slot = after((2, Booted()), slot=slot)
    assert (slot.state, slot.booted, slot.ladder) == (State.STARTING, True, ())
    slot = after((3, Consuming()), slot=slot)
    assert (slot.state, slot.since, slot.reason) == (State.CONSUMING, 3, "")


def test_a_broker_that_goes_away_is_shown_as_starting_with_its_reason() -> None:
    slot = after((5, Waiting("connection refused")), slot=running())
    assert (slot.state, slot.state.shown, slot.reason) == (State.WAITING, "starting", "connection refused")
    slot = after((6, Waiting("no route")), slot=slot)
    assert slot.reason == "no route"
    assert after((7, Consuming()), slot=slot).state is State.CONSUMING


def test_crashes_wait_twice_as_long_each_time_up_to_the_cap_and_are_then_shown_as_failed() -> None:
    slot = Slot(receiver="printer", index=0)
    delays, states = [], []
    for _ in range(10):
        slot = after((0, Forked(1)), (0, Booted()), (0, CRASH), slot=slot)
        delays.append(slot.due)
        states.append(slot.state)
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert states == [State.BACKOFF] * 7 + [State.FAILED] * 3
    assert (slot.failures, slot.restarts, slot.reason) == (10, 10, "exit 70")


def test_a_fork_that_fails_is_a_failed_start() -> None:
    slot = Slot(receiver="printer", index=0)
    delays, states = [], []
    for _ in range(9):
        slot = after((0, ForkFailed("no process", 0.5)), slot=slot)
        delays.append(slot.due)
        states.append(slot.state)
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert states == [State.BACKOFF] * 7 + [State.FAILED] * 2
    assert (slot.failing_since, slot.reason, slot.pid) == (0, "no process", None)
    slot = after((60, Forked(7)), (60, Booted()), (60, Consuming()), (70, CRASH), slot=slot)
    assert slot.failures == 10, "one start that worked is no stable run"
    slot = after((130, Forked(8)), (130, Booted()), (130, Consuming()), (160, CRASH), slot=slot)
    assert (slot.failures, slot.failing_since, slot.due) == (0, None, 160)


def test_a_crash_after_a_stable_run_is_started_again_at_once_and_forgets_the_failures() -> None:
    slot = after((0, Forked(1)), (0, CRASH), (1, Forked(2)), (1, Booted()), (1, Consuming()), (31, SEGFAULT))
    assert (slot.state, slot.due, slot.failures, slot.restarts) == (State.PENDING, 31, 0, 2)
    assert slot.last_exit is not None
    assert (slot.last_exit.ending, slot.last_exit.in_flight) == (Ending(signal=11), "event-1")
    slot = after((31, Forked(3)), (31, CRASH), slot=slot)
    assert (slot.failures, slot.due) == (1, 31.5)


def test_only_consuming_counts_towards_a_stable_run() -> None:
    away = after((10, Waiting("gone")), (500, Consuming()), slot=running())
    assert after((519.9, CRASH), slot=away).state is State.BACKOFF
    assert after((520, CRASH), slot=away).state is State.PENDING


def test_a_child_that_never_consumed_was_not_stable_however_short_that_need_be() -> None:
    slot, _ = step(after((0, Forked(42)), (1, Booted())), CRASH, 100, replace(RULES, stable_after=0))
    assert (slot.state, slot.due, slot.failures) == (State.BACKOFF, 100.5, 1)
    slot, _ = step(running(), CRASH, 0.1, replace(RULES, stable_after=0))
    assert slot.state is State.PENDING


def test_a_wrong_configuration_goes_to_the_cap_at_once_even_after_a_stable_run() -> None:
    exited = Exited(exit=LastExit(ending=Ending(code=78), at=1.0), spread=0.0)
    for slot in (after((0, Forked(1)), (0, Booted()), (100, exited)), after((100, exited), slot=running())):
        assert (slot.state, slot.due) == (State.FAILED, 160)
        assert slot.reason == "configuration (exit 78)"


def test_a_failed_fork_is_a_failed_start() -> None:
    slot = after((0, ForkFailed("no process", 0.5)))
    assert (slot.state, slot.due, slot.failures, slot.reason) == (State.BACKOFF, 0.5, 1, "no process")


def test_a_child_that_does_not_boot_is_dumped_then_told_to_leave_then_killed() -> None:
    slot = after((100, Forked(1)))
    acted = []
    for now in (159.9, 160, 160.1, 160 + DUMP_TIME, 164.9, 165, 166):
        slot, actions = step(slot, TimePassed(), now, RULES)
        acted.append(actions)
    assert acted == [(), (Action.DUMP,), (), (Action.QUIT,), (), (Action.KILL,), ()]
    slot = after((166, Exited(exit=LastExit(ending=Ending(signal=9), at=1.0), spread=0.5)), slot=slot)
    assert (slot.state, slot.reason) == (State.BACKOFF, "not booted within 60 s (SIGKILL)")
    assert not slot.cut


def test_a_stop_drains_by_the_deadline() -> None:
    slot, actions = step(running(), StopAsked(), 10, RULES)
    assert (slot.state, actions) == (State.DRAINING, (Action.TERMINATE,))
    assert slot.ladder == ((40, Action.DUMP), (40 + DUMP_TIME, Action.QUIT), (45, Action.KILL))
    again, actions = step(slot, StopAsked(), 20, RULES)
    assert (again, actions) == (slot, ())
    slot = after((20, Exited(exit=LastExit(ending=Ending(code=0), at=1.0), spread=0.5)), slot=slot)
    assert (slot.state, slot.cut, slot.restarts) == (State.STOPPED, False, 0)


@pytest.mark.parametrize("ending", [Ending(code=80), Ending(signal=9), Ending(signal=11)])
def test_what_is_cut_in_a_drain_is_remembered(ending: Ending) -> None:
    slot = after((10, StopAsked()), (11, Exited(exit=LastExit(ending=ending, at=1.0), spread=0.5)), slot=running())
    assert slot.cut


def test_a_child_that_needed_force_was_cut_even_if_it_then_left_by_itself() -> None:
    clean = Exited(exit=LastExit(ending=Ending(code=0), at=1.0), spread=0.5)
    assert after((10, StopAsked()), (41, TimePassed()), (41, clean), slot=running()).cut
    assert not after((10, ForceAsked()), (11, clean), slot=running()).cut, "idle children leave at once"


def test_force_ends_a_child_now_and_never_gives_more_time() -> None:
    slot, actions = step(running(), ForceAsked(), 10, RULES)
    assert (actions, slot.ladder) == ((Action.QUIT,), ((15, Action.KILL),))
    slot, actions = step(slot, ForceAsked(), 13, RULES)
    assert (actions, slot.ladder) == ((Action.QUIT,), ((15, Action.KILL),))
    slot, _ = step(after((10, StopAsked()), slot=running()), ForceAsked(), 12, RULES)
    assert slot.ladder == ((17, Action.KILL),)


@pytest.mark.parametrize("event", [StopAsked(), ForceAsked()])
def test_a_slot_without_a_child_stops_at_once(event: Event) -> None:
    for slot in (Slot(receiver="a", index=0), after((0, Forked(1)), (0, CRASH))):
        stopped, actions = step(slot, event, 1, RULES)
        assert (stopped.state, actions) == (State.STOPPED, ())


def test_a_stop_reaches_a_child_that_still_boots() -> None:
    slot, actions = step(after((0, Forked(1))), StopAsked(), 1, RULES)
    assert (slot.state, actions) == (State.DRAINING, (Action.TERMINATE,))
    assert after((2, Booted()), (2, Consuming()), slot=slot) == slot, "reports on the way change nothing"


def test_giving_up_needs_all_receivers_to_fail_for_so_long() -> None:
    failing = after((0, Forked(1)), (10, CRASH))
    worse = after((0, Forked(1)), (20, CRASH), (21, Forked(2)), (22, CRASH))
    assert give_up_at((failing, worse), 300) == 320
    assert give_up_at((failing, running()), 300) is None
    assert give_up_at((failing, worse), 0) is None, "0: never"
    assert give_up_at((), 300) is None


def test_a_stable_run_starts_the_clock_of_giving_up_anew_and_a_start_alone_does_not() -> None:
    failing = after((0, Forked(1)), (10, CRASH), (11, Forked(2)), (11, Booted()), (11, Consuming()))
    assert give_up_at((failing,), 300) is None, "it works at present"
    assert give_up_at((after((12, CRASH), slot=failing),), 300) == 310
    stable = after((41, CRASH), (41, Forked(3)), (50, CRASH), slot=failing)
    assert give_up_at((stable,), 300) == 350
    booting = after((60, Forked(4)), slot=stable)
    assert give_up_at((booting,), 300) == 350, "a child that boots does not work yet"


def test_an_outage_of_the_broker_starts_the_clock_of_giving_up_anew() -> None:
    slot = after((0, Forked(1)), (0, CRASH), (1, Forked(2)), (1, Booted()), (1, Waiting("away")))
    assert give_up_at((slot,), 300) is None
    slot = after((1000, Exited(exit=LastExit(ending=Ending(signal=9), at=1.0), spread=0.5)), slot=slot)
    assert give_up_at((slot,), 300) == 1300


def test_ready_when_each_slot_has_booted_once_or_waits_for_its_next_try() -> None:
    booted = after((0, Forked(1)), (0, Booted()))
    booting = after((0, Forked(1)))
    failing = after((0, Forked(1)), (0, CRASH))
    assert is_ready((booted, failing), "booted")
    assert not is_ready((booted, booting), "booted")
    assert not is_ready((running(), booted), "consuming")
    assert is_ready((running(),), "consuming")
    again = after((1, CRASH), (2, Forked(2)), slot=booted)
    assert is_ready((again,), "booted"), "once is enough"


def test_the_status_names_what_a_person_should_look_at_first() -> None:
    failed = after((0, Forked(1)), (0, Exited(exit=LastExit(ending=Ending(code=78), at=1.0), spread=0.5)))
    away = after((0, Waiting("connection refused")), slot=running())
    assert status_line((away, running(), failed), stopping=False) == (
        "1/3 consuming; printer#0 failed: configuration (exit 78); printer#0 starting: connection refused"
    )
    draining = after((1, StopAsked()), slot=running())
    assert status_line((draining,), stopping=True) == "stopping, 1 child left: printer#0"
    assert status_line((), stopping=True) == "stopped"
    assert len(status_line((away,) * 100, stopping=False)) == 500


@given(st.integers(1, 5000), st.floats(0, 1))
def test_a_delay_is_spread_around_its_step_and_never_above_the_cap(failures: int, spread: float) -> None:
    delay = Backoff(base=0.5, cap=60).delay(failures, spread)
    wanted = 0.5 * 2.0 ** min(failures - 1, 20)
    assert min(60, wanted * 0.5) <= delay <= min(60, wanted * 1.5)


@given(st.lists(st.floats(0, 0.5), max_size=100), st.sampled_from([0.5, 1, 4, 20]))
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(pauses: list[float], rate: float) -> None:
    bucket, now, taken = full_bucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        if (left := bucket.take(now)) is not None:
            bucket, taken = left, taken + 1
        else:
            assert bucket.ready_at(now) > now
        assert bucket.take(bucket.ready_at(now)) is not None
    assert taken <= max(1, rate) + rate * now + 1e-6


EVENTS: list[Event] = [
    Forked(7),
    ForkFailed("no process", 0.3),
    Booted(),
    Consuming(),
    Waiting("away"),
    CRASH,
    SEGFAULT,
    Exited(exit=LastExit(ending=Ending(), at=1.0), spread=0.9),
    TimePassed(),
    StopAsked(),
    ForceAsked(),
]


def test_each_state_has_its_row() -> None:
    assert set(TABLE) == set(State)


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from(EVENTS)), max_size=60))
def test_whatever_happens_a_slot_keeps_its_promises(story: list[tuple[float, Event]]) -> None:
    slot, now, stopping = Slot(receiver="printer", index=0), 0.0, False
    for pause, event in story:
        now += pause
        if isinstance(event, Forked | ForkFailed) and slot.state not in RESTING:
            continue  # the master forks only there
        before = slot
        slot, actions = step(slot, event, now, RULES)
        stopping = stopping or isinstance(event, StopAsked | ForceAsked)
        assert (slot.pid is None) == (slot.state in RESTING or slot.state is State.STOPPED)
        assert not actions or before.pid is not None, "nothing is done to a child that is not there"
        assert slot.restarts >= before.restarts
        assert slot.booted_once or not before.booted_once
        assert [at for at, _ in slot.ladder] == sorted(at for at, _ in slot.ladder)
        if slot.state in RESTING:
            assert slot.due <= now + 60 or slot == before
            assert not slot.ladder
        if stopping:
            assert slot.state in (State.DRAINING, State.STOPPED), "a stop is never taken back"
        if slot.state is State.DRAINING:
            assert slot.ladder or slot.pushed, "a drain always has a deadline, or has passed it"


def test_every_pair_of_state_and_event_is_safe() -> None:
    for state, event in itertools.product(State, EVENTS):
        pid = None if state in RESTING or state is State.STOPPED else 7
        slot, _ = step(Slot(receiver="printer", index=0, state=state, pid=pid), event, 1.0, RULES)
        assert isinstance(slot, Slot)


def test_a_bucket_may_have_a_larger_burst_than_one_seconds_worth() -> None:
    bucket = full_bucket(0.5, 0.0, burst=3.0)
    for _ in range(3):
        taken = bucket.take(0.0)
        assert taken is not None
        bucket = taken
    assert bucket.take(0.0) is None
    assert bucket.ready_at(0.0) == 2.0
    assert bucket.take(2.0) is not None
    assert bucket.ready_at(1000.0) == 1000.0
