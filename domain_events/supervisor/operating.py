"""What an operator may ask of a running master, and the answers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping

from domain_events.supervisor.changes import Changes
from domain_events.supervisor.crew import Crew
from domain_events.supervisor.inspecting import inspection
from domain_events.supervisor.metering import MetricsReport, metrics_report
from domain_events.supervisor.protocol import (
    Done,
    Failed,
    Inspect,
    Metrics,
    OperatorExit,
    Reload,
    Reply,
    Request,
    Restart,
    Scale,
    Status,
    unknown_receiver,
)
from domain_events.supervisor.reporting import MasterState, StatusReport, status_report
from domain_events.supervisor.wear import resident_memory
from domain_events.version import __version__

logger = logging.getLogger(__package__)


class Operating:
    """For the control socket, and for the signals that mean the same."""

    def __init__(
        self,
        crew: Crew,
        changes: Changes,
        state: Callable[[], MasterState],
        now: float,
        *,
        log_records_dropped: Callable[[], Mapping[str, int]],
    ) -> None:
        """`state` of the master, as in the status. `log_records_dropped`: by slot."""
        self._crew = crew
        self._changes = changes
        self._state = state
        self._began = now
        self._log_records_dropped = log_records_dropped

    def answer(self, request: Request, later: Callable[[Reply], None]) -> Reply | None:
        """None: `later` gets the reply."""

        def done(problem: str) -> None:
            later(Failed(problem, OperatorExit.FAILED) if problem else Done({}))

        match request:
            case Status():
                return Done(self._status(time.monotonic()))
            case Inspect(receiver=name):
                now = time.monotonic()
                return Done(inspection(self._status(now), self._crew.seats, self._crew.delays, name, now))
            case Metrics():
                return Done(self._metrics(time.monotonic()))
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

    def _metrics(self, now: float) -> MetricsReport:
        return metrics_report(
            self._crew.seats,
            past=self._crew.past,
            receivers=self._crew.receivers,
            master={
                "version": __version__,
                "state": self._state(),
                "started_at": time.time() - (now - self._began),
                "rss": resident_memory(os.getpid()),
            },
            log_records_dropped=self._log_records_dropped(),
            now=now,
            time=time.time(),
        )

    def _status(self, now: float) -> StatusReport:
        return status_report(
            self._crew.seats,
            receivers=self._crew.receivers,
            pid=os.getpid(),
            state=self._state(),
            uptime=now - self._began,
            now=now,
        )

    def more_or_fewer(self, by: int) -> None:
        """One process more or less, of each receiver that has several; of all when none has."""

        def done(problem: str) -> None:
            if problem:
                logger.warning("not scaled: %s", problem)

        for name in self._changes.scalable:
            self._changes.scale(name, max(1, self._changes.processes_of(name) + by), done)
