"""Whether a connection that says nothing is alive: a question that costs the broker nothing and is answered at once.

A line can die without a word, as when a firewall forgets it or the other machine loses its power. Heartbeats tell, but
after half a minute. What is sent in between would wait for a confirm that cannot come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from pika.channel import Channel

REST = 5.0
"""Seconds without a word from the broker, after which it is asked before anything is sent: what has not been sent can
go over another connection without coming twice."""

DOUBT = 1.0
"""Seconds without a word from the broker, after which it is asked while it owes a confirm."""

PATIENCE = 2.0
"""Seconds that the answer may take, or twice the time of the login when that is longer. Twice as many each time that
nothing came: a broker may be so busy that it reads no more for a while."""


class Proof:
    """Belongs into the I/O thread. `answered` is called when an answer has come."""

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        self._channel: Channel | None = None
        self._asked_at: float | None = None
        self._login_time = 0.0
        self._failures = 0
        self.heard_at = 0.0
        """When the broker last said anything about what it was given or asked."""

    @property
    def is_asked(self) -> bool:
        return self._asked_at is not None

    @property
    def patience(self) -> float:
        return float(max(PATIENCE, 2 * self._login_time) * 2**self._failures)

    def begin(self, channel: Channel, login_time: float) -> None:
        """From now on about this channel, which has just been opened."""
        self._channel = channel
        self._login_time = login_time
        self._asked_at = None
        self.heard_at = time.monotonic()

    def end(self) -> None:
        self._channel = self._asked_at = None

    def heard(self) -> None:
        """The broker has confirmed something."""
        self.heard_at = time.monotonic()
        self._failures = 0

    def excuse(self) -> None:
        """It is known why nothing comes."""
        self.heard_at = time.monotonic()
        self._asked_at = None

    def is_needed(self, after: float) -> bool:
        """Whether the broker has said nothing for so many seconds."""
        return time.monotonic() - self.heard_at > after

    def ask(self) -> None:
        if self._channel is None or self._asked_at is not None or not self._channel.is_open:
            return  # one that is not open any more is about to be told of as lost
        self._asked_at = time.monotonic()
        # "Go on sending", which it allows anyway (rabbitmq.com/docs/specification, channel.flow).
        self._channel.flow(True, callback=partial(self._on_answer, self._channel))

    def has_failed(self) -> bool:
        """Whether the answer is overdue. Then the next one may take longer."""
        if self._asked_at is None or time.monotonic() - max(self._asked_at, self.heard_at) < self.patience:
            return False
        self._failures = min(self._failures + 1, 8)
        return True

    def _on_answer(self, channel: Channel, _active: bool) -> None:
        if channel is self._channel:
            self._asked_at = None
            self.heard_at = time.monotonic()
            self._answered()
