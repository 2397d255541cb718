"""What the world sees of a master: its title, and what systemd is told. Only what has changed is told."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Literal

from domain_events.supervisor import status
from domain_events.supervisor.notify import Notifier
from domain_events.supervisor.reporting import MasterState
from domain_events.supervisor.slots import Slot
from domain_events.supervisor.titles import master_title, set_title

_EXTEND_EVERY = 5.0  # seconds, while a drain moves
_EXTEND_BY = 15.0  # seconds


class Display:
    """`name` is what `ps` calls this master; `ready` is when systemd is told that it is."""

    def __init__(self, name: str, ready: Literal["booted", "consuming"], now: float) -> None:
        self._name = name
        self._ready: Literal["booted", "consuming"] = ready
        self._title = ""
        self._notifier = Notifier(os.environ, os.getpid())
        self._alive_at = now
        self._is_ready = False
        self._is_reloading = False
        self._is_stopping = False
        self._extend_at: float | None = None
        self._progress = -1

    @property
    def due(self) -> float | None:
        """When it has something to say though nothing has changed."""
        times = [] if self._notifier.watchdog is None else [self._alive_at]
        if self._extend_at is not None:
            times.append(self._extend_at)
        return min(times, default=None)

    def state(self) -> MasterState:
        """Of the master, in one word."""
        if self._is_stopping:
            return "draining"
        if self._is_reloading:
            return "reloading"
        return "running" if self._is_ready else "starting"

    def show(
        self, slots: Sequence[Slot], now: float, *, is_reloading: bool, deadline: float | None, progress: int
    ) -> None:
        """`deadline` of a stop; `progress` grows when a drain moves."""
        title = master_title(self._name, status.consuming(slots), len(slots))
        if title != self._title:
            self._title = title
            set_title(title, "domain-events")
        self._notifier.status(status.status_line(slots, stopping=self._is_stopping))
        if self._is_stopping:
            self._extend(now, deadline, progress)
        else:
            self._show_reload(is_reloading)
            if not self._is_ready and status.is_ready(slots, self._ready):
                self._is_ready = True
                self._notifier.ready()
        if self._notifier.watchdog is not None and now >= self._alive_at:
            self._alive_at = now + self._notifier.watchdog
            self._notifier.alive()

    def _show_reload(self, is_reloading: bool) -> None:
        if is_reloading == self._is_reloading:
            return
        self._is_reloading = is_reloading
        if is_reloading:
            self._notifier.reloading(time.monotonic_ns() // 1000)
        elif self._is_ready:
            self._notifier.ready()

    def _extend(self, now: float, deadline: float | None, progress: int) -> None:
        """A manager that is less patient than we are must not kill what still moves; our own deadline bounds it."""
        if self._extend_at is not None and now < self._extend_at:
            return
        self._extend_at = now + _EXTEND_EVERY
        if progress > self._progress and deadline is not None:
            self._progress = progress
            self._notifier.extend(min(_EXTEND_BY, max(0.0, deadline - now) + 1.0))

    def stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._notifier.stopping()

    def close(self) -> None:
        self._notifier.close()
