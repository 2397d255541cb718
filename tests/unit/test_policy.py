"""What becomes of a delivery."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.policy import (
    LONGEST_DELAY,
    LONGEST_REASON,
    Backoff,
    DeadLetter,
    Handled,
    Policy,
    Retry,
    RetryLater,
    SetAside,
    decide,
)

THREE = Policy(max_retries=3)
DAY = 24 * 3600.0


# What a handler raises


def test_a_retry_says_after_how_many_seconds():
    assert Retry(5.0).delay == 5.0
    assert Retry(5).delay == 5.0
    assert Retry(0).delay == 0.0
    assert Retry().delay is None
    assert str(Retry(1.5)) == "retry in 1.5 s"
    assert str(Retry()) == "retry"


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400])
def test_a_retry_with_an_impossible_delay_is_a_value_error(delay: float):
    with pytest.raises(ValueError, match="finite number of seconds"):
        Retry(delay)


@pytest.mark.parametrize("delay", ["soon", [], {}])
def test_a_retry_whose_delay_is_no_number_is_refused(delay: Any):
    with pytest.raises((TypeError, ValueError)):
        Retry(delay)


def test_a_dead_letter_says_why():
    assert DeadLetter("no such user").reason == "no such user"
    assert str(DeadLetter("no such user")) == "no such user"
    assert DeadLetter().reason


def test_both_come_out_of_a_process_pool():
    assert pickle.loads(pickle.dumps(Retry(5.0))).delay == 5.0
    assert pickle.loads(pickle.dumps(Retry())).delay is None
    assert pickle.loads(pickle.dumps(DeadLetter("no such user"))).reason == "no such user"


# Backoff


def test_backoff_grows_by_the_factor_up_to_the_maximum():
    backoff = Backoff(first=10.0, factor=2.0, max=60.0, jitter=0.1)
    assert [backoff.delay(retries) for retries in range(5)] == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_jitter_spreads_the_delay_to_both_sides():
    backoff = Backoff(first=10.0, factor=1.0, max=60.0, jitter=0.1)
    assert [backoff.delay(0, spread) for spread in (0.0, 0.5, 1.0)] == [9.0, 10.0, 11.0]


def test_jitter_goes_in_steps_which_are_equally_likely():
    backoff = Backoff(first=100.0, factor=1.0, jitter=0.1)
    delays = [round(backoff.delay(0, (n + 0.5) / 10)) for n in range(10)]
    assert delays == [90, 90, 95, 95, 100, 100, 105, 105, 110, 110]


@pytest.mark.parametrize(("jitter", "delays"), [(0.0, 1), (0.01, 3), (0.05, 3), (0.1, 5), (0.5, 21), (1.0, 41)])
def test_more_jitter_leads_to_more_delays(jitter: float, delays: int):
    backoff = Backoff(first=100.0, factor=1.0, jitter=jitter)
    assert len({round(backoff.delay(0, n / 1000), 6) for n in range(1001)}) == delays


def test_the_default_backoff_is_ten_seconds_doubling_up_to_an_hour():
    assert Backoff() == Backoff(first=10.0, factor=2.0, max=3600.0, jitter=0.1)


@pytest.mark.parametrize("factor", [2, 2.0, 1e300])
def test_backoff_survives_any_number_of_retries(factor: float):
    assert Backoff(first=10.0, factor=factor).delay(100_000) == 3600.0
    assert Backoff(first=0.0, factor=factor).delay(100_000) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": -1.0},
        {"first": math.nan},
        {"first": math.inf},
        {"first": 50 * DAY},
        {"first": "10"},
        {"first": True},
        {"factor": 0.5},
        {"factor": math.inf},
        {"max": -1.0},
        {"max": 50 * DAY},
        {"max": None},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
    ],
)
def test_an_impossible_backoff_is_refused_and_the_field_named(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=rf"Backoff\({next(iter(wrong))}="):
        Backoff(**wrong)


@given(
    first=st.floats(0, LONGEST_DELAY),
    factor=st.floats(1, 1e9),
    most=st.floats(0, LONGEST_DELAY),
    jitter=st.floats(0, 1),
    retries=st.integers(0, 10**6),
    spread=st.floats(0, 1),
)
def test_every_delay_is_one_that_a_queue_can_have(
    first: float, factor: float, most: float, jitter: float, retries: int, spread: float
):
    backoff = Backoff(first=first, factor=factor, max=most, jitter=jitter)
    assert 0 <= backoff.delay(retries, spread) <= 2 * most
    outcome = decide(Retry(), retries=retries, policy=Policy(max_retries=10**6 + 1, backoff=backoff), spread=spread)
    assert isinstance(outcome, RetryLater)
    assert 0 <= outcome.delay <= LONGEST_DELAY


# The decision


def test_a_handler_that_returns_is_done():
    assert decide(None, retries=0, policy=Policy()) == Handled()
    assert decide(None, retries=9, policy=THREE) == Handled()


def test_retry_comes_back_after_its_own_delay():
    assert decide(Retry(7.0), retries=0, policy=THREE) == RetryLater(delay=7.0)
    assert decide(Retry(0), retries=0, policy=THREE) == RetryLater(delay=0.0)


def test_five_to_the_retries_gives_1_5_and_25_seconds():
    outcomes = [decide(Retry(5.0**retries), retries=retries, policy=THREE) for retries in range(4)]
    assert outcomes[:3] == [RetryLater(delay=1.0), RetryLater(delay=5.0), RetryLater(delay=25.0)]
    assert outcomes[3] == SetAside(reason="still failing after 3 of 3 retries")


def test_retry_without_a_delay_uses_the_backoff_and_its_spread():
    policy = Policy(max_retries=3, backoff=Backoff(first=10.0, factor=3.0, jitter=0.5))
    assert decide(Retry(), retries=1, policy=policy) == RetryLater(delay=30.0)
    assert decide(Retry(), retries=1, policy=policy, spread=0.0) == RetryLater(delay=15.0)


@pytest.mark.parametrize("retries", [3, 4, 1000])
def test_the_last_attempt_ends_in_the_dead_letters(retries: int):
    outcome = decide(Retry(1), retries=retries, policy=THREE)
    assert outcome == SetAside(reason=f"still failing after {retries} of 3 retries")


def test_without_retries_allowed_a_retry_is_a_dead_letter():
    assert isinstance(decide(Retry(1), retries=0, policy=Policy()), SetAside)


def test_a_dead_letter_is_set_aside_at_once_for_its_reason():
    assert decide(DeadLetter("no such user"), retries=0, policy=THREE) == SetAside(reason="no such user")


@pytest.mark.parametrize(
    ("given_reason", "one_line"),
    [("a\nb\r\n  c", "a b c"), ("", "the handler gave no reason"), (" \n", "the handler gave no reason")],
)
def test_the_reason_of_a_dead_letter_is_one_line(given_reason: str, one_line: str):
    assert decide(DeadLetter(given_reason), retries=0, policy=THREE) == SetAside(reason=one_line)


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(1), KeyboardInterrupt()])
def test_any_other_error_is_set_aside_at_once(error: BaseException):
    outcome = decide(error, retries=0, policy=THREE)
    assert outcome == SetAside(reason=f"the handler raised {type(error).__name__}")


def test_an_error_in_retry_on_is_retried_and_so_are_its_subclasses():
    policy = Policy(max_retries=1, retry_on=(OSError,))
    assert decide(ConnectionError(), retries=0, policy=policy) == RetryLater(delay=10.0)
    assert isinstance(decide(ConnectionError(), retries=1, policy=policy), SetAside)
    assert isinstance(decide(ValueError(), retries=0, policy=policy), SetAside)


def test_a_dead_letter_wins_over_retry_on():
    policy = Policy(max_retries=1, retry_on=(Exception,))
    assert decide(DeadLetter("no"), retries=0, policy=policy) == SetAside(reason="no")


def test_a_delay_above_49_days_is_cut():
    assert decide(Retry(365 * DAY), retries=0, policy=THREE) == RetryLater(delay=49 * DAY)
    assert LONGEST_DELAY * 1000 < 2**32  # milliseconds, as the broker counts


def test_a_reason_is_one_short_printable_line_whatever_the_handler_gave() -> None:
    hostile = "no\n2026-01-01 CRITICAL forged\r\x1b[2J\x9b1m\0\u202e\ud800"
    outcome = decide(DeadLetter(hostile), retries=0, policy=Policy())
    assert outcome == SetAside(reason=r"no 2026-01-01 CRITICAL forged \x1b[2J\x9b1m\x00\u202e\ud800")
    for error in (DeadLetter("x" * 10**6), type("E\n" * 10**4, (Exception,), {})()):
        outcome = decide(error, retries=0, policy=Policy())
        assert isinstance(outcome, SetAside)
        assert outcome.reason.isprintable()
        assert len(outcome.reason) <= LONGEST_REASON
