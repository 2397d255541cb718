"""What is measured of events: in which buckets durations are counted, and what a failure is called."""

from __future__ import annotations

from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets for how long handlers take, in seconds; one more is for all that is longer."""

LATENESS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
"""The same for how late events are handled: from milliseconds to the longest delay of a retry."""

LATEST: Final = 10 * 365.25 * 86400.0
"""Seconds. No event counts for later than that: a sum could not be used any more after a timestamp of the year 1."""

MOST_ERROR_TYPES: Final = 24
"""By name, of one process of a receiver. The errors of other types are counted together."""

LONGEST_ERROR_TYPE: Final = 80
"""Bytes of UTF-8."""

OTHER: Final = "other"
"""The type of errors whose own is one too many, too long, or not to be printed."""


def lateness(timestamp: float, now: float) -> float:
    """Seconds from the sending of an event; 0 where the sender's clock is ahead."""
    late = now - timestamp
    if 0.0 <= late <= LATEST:
        return late
    return LATEST if late > LATEST else 0.0


def error_type(error: BaseException | None) -> str:
    """As a label. None: no handler was called, the consumer had died of the event before."""
    if error is None:
        return "ConsumerDied"
    name = type(error).__name__
    is_fit = name.isprintable() and 0 < len(name.encode(errors="replace")) <= LONGEST_ERROR_TYPE
    return name if is_fit else OTHER
