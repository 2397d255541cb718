"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], deadline: float = 60.0, what: str = "", *, pause: float = 0.02) -> Value:
    """The first true value of `condition()`, asked every `pause` seconds for at most `deadline` seconds.

    Otherwise an AssertionError that says `what` was waited for, and the last value. The deadline is for what never
    comes: a machine may be ten times slower for a while. Give a shorter one where something else would come later.
    """
    end = time.monotonic() + deadline
    while True:
        # The clock is read before the question: a process that was suspended in between asks once more.
        late = time.monotonic() >= end
        value = condition()
        if value:
            return value
        if late:
            name = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {deadline:g} s: {name} (last value: {value!r})")
        time.sleep(pause)
