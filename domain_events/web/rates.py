"""Events a second, from counters that were read now and then. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WINDOW = 10.0  # seconds that a rate is the mean of
_KEPT = 64  # readings
_APART = 0.5  # seconds, at least, between two that are kept


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one receiver: events, or events a second."""

    handled: float = 0
    retried: float = 0
    dead_lettered: float = 0


class Rates:
    """Told what is read, whenever somebody reads."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, Mapping[str, Counts]]] = deque(maxlen=_KEPT)

    def note(self, now: float, inspection: Mapping[str, Any]) -> None:
        """`now`: seconds of any clock."""
        if self._readings and now - self._readings[-1][0] < _APART:
            return
        self._readings.append((now, {each["name"]: counts_of(each) for each in inspection["receivers"]}))

    def of(self, receiver: str) -> Counts | None:
        """The mean of the last ten seconds, as far as it was read; None: not known yet."""
        found = [(at, counts[receiver]) for at, counts in self._readings if receiver in counts]
        if len(found) < 2:
            return None
        until, last = found[-1]
        since, first = next((each for each in found[:-1] if until - each[0] <= _WINDOW), found[-2])
        seconds = until - since
        # A process that is there no more takes its counts along: that is no negative rate.
        return Counts(
            handled=max(0.0, last.handled - first.handled) / seconds,
            retried=max(0.0, last.retried - first.retried) / seconds,
            dead_lettered=max(0.0, last.dead_lettered - first.dead_lettered) / seconds,
        )


def counts_of(receiver: Mapping[str, Any]) -> Counts:
    """Of all its processes, as the master inspects them."""
    processes = receiver["processes"]
    return Counts(
        handled=sum(each["handled"] for each in processes),
        retried=sum(each["retried"] for each in processes),
        dead_lettered=sum(each["dead_lettered"] for each in processes),
    )
