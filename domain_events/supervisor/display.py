"""What the world sees of a master: its title, and what systemd is told. Only what has changed is told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from domain_events.supervisor import status
from domain_events.supervisor.notify import Notifier
from domain_events.supervisor.slots import Slot
from domain_events.supervisor.titles import master_title, set_title


class Display:
    """`name` is what `ps` calls this master; `ready` is when systemd is told that it is."""

    def __init__(self, name: str, ready: Literal["booted", "consuming"], now: float) -> None:
        self._name = name
        self._ready: Literal["booted", "consuming"] = ready
        self._title = ""
        self._notifier = Notifier(os.environ, os.getpid())
        self._alive_at = now
        self._is_stopping = False

    @property
    def due(self) -> float | None:
        """When the watchdog wants its next sign of life; None without one."""
        return None if self._notifier.watchdog is None else self._alive_at

    def show(self, slots: Sequence[Slot], now: float) -> None:
        title = master_title(self._name, status.consuming(slots), len(slots))
        if title != self._title:
            self._title = title
            set_title(title, "domain-events")
        self._notifier.status(status.status_line(slots, stopping=self._is_stopping))
        if not self._is_stopping and status.is_ready(slots, self._ready):
            self._notifier.ready()
        if self._notifier.watchdog is not None and now >= self._alive_at:
            self._alive_at = now + self._notifier.watchdog
            self._notifier.alive()

    def stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._notifier.stopping()

    def close(self) -> None:
        self._notifier.close()
