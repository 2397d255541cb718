"""What is in hand for too long is told once, before the broker takes it back."""

from __future__ import annotations

import time

import pytest

from domain_events.transport.long_handlers import LONG_HANDLER, LOOKS_EVERY, LongHandlers
from domain_events.transport.subscription import Delivery
from tests.deliveries import delivery, handling


def begun(seconds_ago: float) -> Delivery:
    made = delivery(handling(print))
    made.begun = time.monotonic() - seconds_ago
    return made


def test_each_event_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    watch, now = LongHandlers(), time.monotonic()
    long, longer, short = begun(LONG_HANDLER - 1), begun(LONG_HANDLER + 60), begun(60)
    for n in range(3):
        watch.look({long, longer, short}, now + n * LOOKS_EVERY)
        assert len(caplog.records) == min(n + 1, 2)  # the long one with the second look
    watch.look({short}, now + 3 * LOOKS_EVERY)
    assert len(caplog.records) == 2


def test_the_longest_is_that_of_one_receiver() -> None:
    mine, older, other = begun(20), begun(30), begun(100)
    older.subscription = mine.subscription
    longest = LongHandlers().longest({mine, older, other}, mine.subscription)
    assert longest is not None
    assert 29 < longest < 35
    assert LongHandlers().longest({other}, mine.subscription) is None
