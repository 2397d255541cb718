"""When a child may be started again. Pure: time and chance are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays (seconds) that double from `base` with each failure in a row and never pass `cap`."""

    base: float = 0.5
    cap: float = 60.0

    def delay(self, failures: int, spread: float) -> float:
        """Seconds, after `failures` failures in a row (1 is the first). `spread` is a random number in 0..1.

        The spread is half to one and a half times: receivers that died together do not come back together.
        """
        return min(self._grown(failures) * (0.5 + spread), self.cap)

    def is_at_cap(self, failures: int) -> bool:
        """Whether further failures no longer change the delay."""
        return self._grown(failures) >= self.cap

    def _grown(self, failures: int) -> float:
        try:
            return math.ldexp(self.base, failures - 1)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket: at most `rate` forks a second, after a burst of one second's worth.

    It bounds what a machine suffers when every receiver crashes at once, whatever their back-offs say.
    """

    rate: float
    tokens: float
    at: float  # when `tokens` were counted

    def take(self, now: float) -> Bucket | None:
        """The bucket with one token less; None when there is none."""
        tokens = self._tokens_at(now)
        # The tolerance is for `ready_at`: rounding must not turn its answer into one more wait of no length.
        return None if tokens < 1.0 - 1e-9 else replace(self, tokens=max(0.0, tokens - 1.0), at=now)

    def ready_at(self, now: float) -> float:
        """When there is a token: `now` or later."""
        return now + max(0.0, 1.0 - self._tokens_at(now)) / self.rate

    def _tokens_at(self, now: float) -> float:
        return min(max(1.0, self.rate), self.tokens + max(0.0, now - self.at) * self.rate)


def full_bucket(rate: float, now: float) -> Bucket:
    return Bucket(rate=rate, tokens=max(1.0, rate), at=now)
