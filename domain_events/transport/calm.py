"""When a channel may be closed, so that the broker has all that it was told on it."""

from __future__ import annotations

import time
from collections import deque

MANY = 16
"""Acks and nacks. Of those for a quorum queue that are not in its log yet, RabbitMQ lets 32 be under way; more wait in
the channel, and are lost with it (rabbit_fifo_client, quorum_commands_soft_limit). Seen on 3.10, 4.0 and 4.3: after 99
nacks, an ack and a close, the acknowledged event came again each time."""

PAUSE = 0.25
"""Seconds, for the queue to catch up. Nothing tells when it has; a write to its log takes some milliseconds."""


class Calm:
    """Of one channel."""

    def __init__(self) -> None:
        self._told: deque[float] = deque(maxlen=MANY)

    def note(self) -> None:
        """An ack or a nack is being sent."""
        self._told.append(time.monotonic())

    def wait(self) -> float:
        """Seconds until the channel may be closed."""
        if len(self._told) < MANY:
            return 0.0
        return max(0.0, self._told[0] + PAUSE - time.monotonic())
