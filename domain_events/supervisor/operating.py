"""What an operator may ask of a running master, and the answers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from domain_events.supervisor.changes import Changes
from domain_events.supervisor.crew import Crew
from domain_events.supervisor.protocol import (
    Done,
    Failed,
    OperatorExit,
    Reload,
    Reply,
    Request,
    Restart,
    Scale,
    Status,
    unknown_receiver,
)
from domain_events.supervisor.reporting import MasterState, status_report

logger = logging.getLogger(__package__)


class Operating:
    """For the control socket, and for the signals that mean the same."""

    def __init__(self, crew: Crew, changes: Changes, state: Callable[[], MasterState], now: float) -> None:
        """`state` of the master, as in the status."""
        self._crew = crew
        self._changes = changes
        self._state = state
        self._began = now

    def answer(self, request: Request, later: Callable[[Reply], None]) -> Reply | None:
        """None: `later` gets the reply."""

        def done(problem: str) -> None:
            later(Failed(problem, OperatorExit.FAILED) if problem else Done({}))

        match request:
            case Status():
                now = time.monotonic()
                return Done(
                    status_report(
                        self._crew.seats,
                        receivers=self._crew.receivers,
                        pid=os.getpid(),
                        state=self._state(),
                        uptime=now - self._began,
                        now=now,
                    )
                )
            case Restart(receiver=name) | Scale(receiver=name) if name not in self._crew.receivers:
                return unknown_receiver(name, self._crew.receivers)
            case Restart(receiver=name):
                self._changes.restart(name, done)
            case Scale(receiver=name, processes=processes):
                self._changes.scale(name, processes, done)
            case Reload(wait=True):
                self._changes.reload(done)
            case Reload():
                self._changes.reload()
                return Done({})
        return None

    def more_or_fewer(self, by: int) -> None:
        """One process more or less, of each receiver that has several; of all when none has."""

        def done(problem: str) -> None:
            if problem:
                logger.warning("not scaled: %s", problem)

        for name in self._changes.scalable:
            self._changes.scale(name, max(1, self._changes.processes_of(name) + by), done)
