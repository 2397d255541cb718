"""Whether a child hangs, from its clocks alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.hanging import Limits, Verdict, look
from domain_events.supervisor.notes import InHand
from domain_events.supervisor.slots import Hung

NO_LIMITS = Limits(timeout=None, hang_timeout=None)


def event(name: str, since: float) -> InHand:
    return InHand(id=name, since=since)


def judged(
    limits: Limits, *in_hand: InHand, last_beat: float | None = None, not_before: float = 0.0, now: float
) -> Verdict:
    return look(limits, in_hand=in_hand, last_beat=last_beat, not_before=not_before, now=now)


# One event takes too long


def test_an_event_in_hand_for_its_timeout_hangs_and_is_to_blame() -> None:
    limits = Limits(timeout=2.0, hang_timeout=None)
    assert judged(limits, event("a", 100.0), now=101.9) == Verdict(look_at=102.0)
    verdict = judged(limits, event("a", 100.0), now=102.0)
    assert verdict == Verdict(hung=Hung(cause="timeout 2.0s"), culprits=("a",))


def test_the_cause_shows_the_timeout_as_a_float_whatever_was_registered() -> None:
    for timeout, shown in ((2, "timeout 2.0s"), (0.25, "timeout 0.25s"), (3600, "timeout 3600.0s")):
        verdict = judged(Limits(timeout=timeout, hang_timeout=None), event("a", 0.0), now=5000.0)
        assert verdict.hung == Hung(cause=shown)


def test_of_several_only_the_slow_ones_are_to_blame_and_the_others_may_finish() -> None:
    limits = Limits(timeout=2.0, hang_timeout=None)
    verdict = judged(limits, event("a", 100.0), event("b", 100.5), event("c", 101.0), now=102.6)
    assert verdict == Verdict(hung=Hung(cause="timeout 2.0s", gently=True), culprits=("a", "b"))


def test_when_all_of_several_are_too_slow_there_is_nobody_to_wait_for() -> None:
    verdict = judged(Limits(timeout=2.0, hang_timeout=None), event("a", 0.0), event("b", 0.0), now=2.0)
    assert verdict == Verdict(hung=Hung(cause="timeout 2.0s"), culprits=("a", "b"))


def test_where_the_handler_is_told_first_it_has_time_to_react() -> None:
    limits = Limits(timeout=2.0, patience=5.0, hang_timeout=None)
    assert judged(limits, event("a", 100.0), now=106.9) == Verdict(look_at=107.0)
    assert judged(limits, event("a", 100.0), now=107.0).hung == Hung(cause="timeout 2.0s")


def test_with_nothing_in_hand_the_next_look_is_in_time_for_whatever_begins_now() -> None:
    assert judged(Limits(timeout=2.0, hang_timeout=None), now=50.0) == Verdict(look_at=52.0)


# No sign of life


def test_without_a_sign_of_life_for_too_long_it_hangs_and_all_in_hand_may_be_why() -> None:
    limits = Limits(timeout=None, hang_timeout=120.0)
    in_hand = (event("a", 10.0), event("b", 20.0))
    assert judged(limits, *in_hand, last_beat=100.0, now=219.0) == Verdict(look_at=220.0)
    verdict = judged(limits, *in_hand, last_beat=100.0, now=220.0)
    assert verdict == Verdict(hung=Hung(cause="no sign of life for 120s"), culprits=("a", "b"))
    assert judged(limits, last_beat=100.0, now=220.0).culprits == ()


def test_a_child_that_has_never_given_a_sign_of_life_has_other_deadlines() -> None:
    assert judged(Limits(timeout=None, hang_timeout=1.0), now=1e6) == Verdict()


def test_an_event_that_takes_too_long_names_the_culprit_better_than_a_missing_sign_of_life() -> None:
    limits = Limits(timeout=2.0, hang_timeout=2.0)
    verdict = judged(limits, event("a", 0.0), event("b", 9.0), last_beat=0.0, now=10.0)
    assert verdict == Verdict(hung=Hung(cause="timeout 2.0s", gently=True), culprits=("a",))


# Whoever slept himself


def test_no_clock_counts_from_before_the_master_woke_up() -> None:
    limits = Limits(timeout=2.0, hang_timeout=3.0)
    asleep = {"last_beat": 100.0, "not_before": 500.0}
    assert judged(limits, event("a", 100.0), **asleep, now=500.0) == Verdict(look_at=502.0)
    assert judged(limits, event("a", 100.0), **asleep, now=502.0).culprits == ("a",)
    assert judged(limits, **asleep, now=500.5) == Verdict(look_at=502.5)
    assert judged(limits, last_beat=100.0, not_before=500.0, now=503.0).hung == Hung(cause="no sign of life for 3s")


def test_without_limits_nobody_looks_again() -> None:
    assert judged(NO_LIMITS, event("a", 0.0), last_beat=0.0, now=1e9) == Verdict()


times = st.floats(0, 1e6, allow_nan=False)
limits_given = st.none() | st.floats(0.001, 1e5, allow_nan=False)


@given(
    timeout=limits_given,
    hang_timeout=limits_given,
    patience=st.sampled_from([0.0, 5.0]),
    since=st.lists(times, max_size=5).map(sorted),
    last_beat=st.none() | times,
    not_before=times,
    age=times,
)
def test_every_look_ends_in_a_verdict_or_in_a_time_for_the_next(
    timeout: float | None,
    hang_timeout: float | None,
    patience: float,
    since: list[float],
    last_beat: float | None,
    not_before: float,
    age: float,
) -> None:
    now = max(not_before, last_beat or 0.0, *since, 0.0) + age
    limits = Limits(timeout=timeout, patience=patience, hang_timeout=hang_timeout)
    in_hand = [event(f"id-{n}", at) for n, at in enumerate(since)]
    verdict = look(limits, in_hand=in_hand, last_beat=last_beat, not_before=not_before, now=now)
    if verdict.hung is not None:
        assert verdict.look_at is None
        assert set(verdict.culprits) <= {each.id for each in in_hand}
    else:
        assert verdict.culprits == ()
        # In the future: the master does not run in circles. And in time for every limit that there is.
        if verdict.look_at is not None:
            assert verdict.look_at > now
        if timeout is not None:
            assert verdict.look_at is not None
            assert verdict.look_at <= now + timeout + patience + 1e-6
        if hang_timeout is not None and last_beat is not None:
            assert verdict.look_at is not None
            assert verdict.look_at <= now + hang_timeout + 1e-6


@given(timeout=st.floats(0.01, 100), began=times, looked=st.floats(0, 1))
def test_an_event_that_begins_between_two_looks_is_found_at_its_own_deadline(
    timeout: float, began: float, looked: float
) -> None:
    """Nobody tells the master that an event has begun."""
    limits = Limits(timeout=timeout, hang_timeout=None)
    now = began - looked * timeout  # some time before it, the master has looked and found nothing
    verdict = judged(limits, now=now)
    looks = 0
    while verdict.hung is None:
        assert verdict.look_at is not None
        now, looks = verdict.look_at, looks + 1
        in_hand = [event("a", began)] if now >= began else []
        verdict = judged(limits, *in_hand, now=now)
    assert verdict.culprits == ("a",)
    assert began + timeout <= now <= began + timeout + 1e-6
    assert looks <= 3
