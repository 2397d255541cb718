"""What becomes of a delivery. Pure: no clock, no socket, no randomness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from domain_events.showing import one_line

LONGEST_DELAY = 49 * 24 * 3600.0
"""Seconds. A message's time to live in RabbitMQ is an unsigned 32-bit number of milliseconds: 49.7 days."""


LONGEST_REASON = 2_000
"""Characters."""

JITTER_STEP = 0.05
"""Of the delay: about so far apart are the delays that jitter leads to. Each of them is a queue at the broker."""


class Retry(Exception):
    """Raised by a handler: this event again after `delay` seconds, at most `max_retries` times.

    `None` leaves the delay to the receiver's `backoff`. A delay below 0, NaN or infinite is a ValueError;
    one above 49 days is cut to 49 days.
    """

    def __init__(self, delay: float | None = None) -> None:
        if delay is not None:
            try:
                delay = float(delay)
            except OverflowError:
                delay = math.inf
            if not (math.isfinite(delay) and delay >= 0):
                raise ValueError(f"Retry({delay!r}): the delay must be a finite number of seconds, 0 or more")
        self.delay = delay
        super().__init__(delay)  # what it was made from, so that it can be pickled out of a process pool

    def __str__(self) -> str:
        return "retry" if self.delay is None else f"retry in {self.delay:g} s"


class DeadLetter(Exception):
    """Raised by a handler: set this event aside for a person, at once, for this reason."""

    def __init__(self, reason: str = "the handler asked for it") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing delays: `first * factor ** retries`, never above `max`, then spread by `jitter`.

    `first` and `max` are seconds; `jitter` is a fraction of the delay, 0..1, to both sides, in steps of 0.05.
    """

    first: float = 10.0
    factor: float = 2.0
    max: float = 3600.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("first", 0.0, LONGEST_DELAY),
            ("factor", 1.0, math.inf),
            ("max", 0.0, LONGEST_DELAY),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"Backoff({name}={value!r}) must be a number")
            if not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"Backoff({name}={value!r}) must be between {least:g} and {most:g}")

    def delay(self, retries: int, spread: float = 0.5) -> float:
        """Seconds until the next try of an event that was retried `retries` times so far.

        `spread` is a random number in 0..1 chosen by the caller; 0.5 means no jitter.
        """
        steps = max(1, round(self.jitter / JITTER_STEP))  # to each side
        step = min(int(spread * (2 * steps + 1)), 2 * steps) - steps
        try:
            grown = self.first * self.factor**retries
        except OverflowError:
            grown = self.max if self.first else 0.0
        # Never nothing of it: with a jitter of 1 one retry of many would come back at once.
        return min(grown, self.max) * max(1.0 + self.jitter * step / steps, JITTER_STEP / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a receiver does about failures."""

    max_retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    backoff: Backoff = Backoff()


@dataclass(frozen=True, slots=True)
class Handled:
    """Settle with an ack: the handler returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    """Settle with a copy in the retry queue of `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Settle with a copy in the dead letters. `reason` is one line for a person, printable."""

    reason: str


Outcome: TypeAlias = Handled | RetryLater | SetAside


def decide(
    error: BaseException | None, *, retries: int, policy: Policy, spread: float = 0.5, reason: str | None = None
) -> Outcome:
    """The outcome of a handler that raised `error`, or returned (`None`), on its `retries`-th retry.

    `reason`: why it failed, when the class of the error does not say it all.
    """
    if error is None:
        return Handled()
    if isinstance(error, DeadLetter):
        return SetAside(reason=one_line(error.reason, LONGEST_REASON) or "the handler gave no reason")
    if not isinstance(error, (Retry, *policy.retry_on)):
        return SetAside(reason=one_line(reason or reason_of(error), LONGEST_REASON))
    if retries >= policy.max_retries:
        return SetAside(reason=f"still failing after {retries} of {policy.max_retries} retries")
    asked = error.delay if isinstance(error, Retry) else None
    delay = policy.backoff.delay(retries, spread) if asked is None else asked
    return RetryLater(delay=min(delay, LONGEST_DELAY))


def reason_of(error: BaseException) -> str:
    """Why an event was not handled, on one line, when its handler raised `error` and nothing more is known."""
    if isinstance(error, Retry):
        return "the handler asked for a retry"
    return one_line(f"the handler raised {type(error).__name__}", LONGEST_REASON)
