"""What the world sees of a master: its title, and what systemd is told. Only what has changed is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from domain_events.supervisor import status
from domain_events.supervisor.notify import Notifier
from domain_events.supervisor.reporting import MasterState
from domain_events.supervisor.slots import Slot
from domain_events.supervisor.titles import master_title, set_title

EXTEND_EVERY = 5.0
"""Seconds between two requests for more time, while something moves."""

_EXTEND_BY = 15.0  # seconds
_ENDING = 4.0  # seconds, after the deadline of a stop: for the last log lines, and what handlers have left behind
_TRY_AGAIN = 0.1  # seconds, when the manager is too busy to listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """`number`: how many reloads have begun. `progress`: of the one that goes on, for people; empty without one."""

    number: int
    progress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """A stop. `deadline` is the master's own. `moves` tells whether it is worth waiting for."""

    deadline: float
    moves: Callable[[], bool]


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
        self._reloads_told = 0
        self._owes_ready = False
        self._is_stopping = False
        self._extend_at: float | None = None
        self._try_again_at: float | None = None

    @property
    def due(self) -> float | None:
        """When it has something to say though nothing has changed."""
        times = [self._extend_at, self._try_again_at, None if self._notifier.watchdog is None else self._alive_at]
        return min((at for at in times if at is not None), default=None)

    def state(self) -> MasterState:
        """Of the master, in one word."""
        if self._is_stopping:
            return "draining"
        if self._is_reloading:
            return "reloading"
        return "running" if self._is_ready else "starting"

    def show(self, slots: Sequence[Slot], now: float, *, reloading: Reloading, draining: Draining | None) -> None:
        """To be called in each turn of the loop: it is the sign of life of all of it."""
        title = master_title(self._name, status.consuming(slots), len(slots))
        if title != self._title:
            self._title = title
            set_title(title, "domain-events")
        self._notifier.status(status.status_line(slots, stopping=self._is_stopping, reload=reloading.progress))
        if draining is None:
            self._show_reload(reloading)
            if not self._is_ready and status.is_ready(slots, self._ready):
                self._is_ready = True
                self._notifier.ready()
        self._ask_for_time(now, draining)
        if self._notifier.watchdog is not None and now >= self._alive_at:
            self._alive_at = now + self._notifier.watchdog
            self._notifier.alive()
        self._try_again_at = None if self._notifier.flush() else now + _TRY_AGAIN

    def _show_reload(self, reloading: Reloading) -> None:
        self._is_reloading = bool(reloading.progress)
        is_new = reloading.number != self._reloads_told
        self._reloads_told = reloading.number
        if is_new and self._is_ready:  # before that, it is a part of the start
            # Also of one that has failed within this turn: whoever has asked for it waits for both words.
            self._notifier.reloading(time.monotonic_ns() // 1000)
            self._owes_ready = True
        if self._owes_ready and not self._is_reloading:
            self._owes_ready = False
            self._notifier.ready()

    def _ask_for_time(self, now: float, draining: Draining | None) -> None:
        """A manager that is less patient than we are must not end what still moves; our own deadlines bound it."""
        if draining is None and not self._is_reloading:
            self._extend_at = None
            return
        if self._extend_at is not None and now < self._extend_at:
            return
        self._extend_at = now + EXTEND_EVERY
        if draining is None:
            self._notifier.extend(_EXTEND_BY)  # every step of a reload has its deadline
        elif draining.moves():
            self._notifier.extend(min(_EXTEND_BY, max(0.0, draining.deadline - now) + _ENDING))

    def stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._extend_at = None
            self._notifier.stopping()

    def close(self) -> None:
        self._notifier.close()
