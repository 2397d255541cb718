"""How long to wait before coming back to a broker that is away."""

from __future__ import annotations

from domain_events.jitter import between

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds; with full jitter, so that many processes do not come back in step."""


def pause(failures: int) -> float:
    """Seconds, after so many failures in a row before this one."""
    return between(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)))
