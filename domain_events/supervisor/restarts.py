"""When a child may be started again. Pure: time and chance are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
