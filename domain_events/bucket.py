"""A token bucket: how often something may happen. Pure: time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """At most `rate` tokens a second, after a burst of `burst`."""

    rate: float
    burst: float
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
        return min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)


def full_bucket(rate: float, now: float, burst: float | None = None) -> Bucket:
    """`burst`: one second's worth unless given, and at least one token."""
    burst = max(1.0, rate if burst is None else burst)
    return Bucket(rate=rate, burst=burst, tokens=burst, at=now)
