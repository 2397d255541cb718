"""Random numbers that keep apart what would happen at the same moment. They are no secret.

From the kernel, not from the random module: that would cost each process 0.1 MB, and seeds its numbers only once.
"""

from __future__ import annotations

import os

_STEPS = 2.0**53  # as fine as a float can be


def fraction() -> float:
    """From 0 on, and below 1."""
    return (int.from_bytes(os.urandom(7)) >> 3) / _STEPS


def between(low: float, high: float) -> float:
    return low + (high - low) * fraction()
