"""A child process as its master sees it: a pid to signal and to wait for, reports, and a log line."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from domain_events.supervisor.exits import Ending, ending_of
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.reports import Report, Reports
from domain_events.supervisor.stacks import Stacks


class Process:
    """Made just after the fork. `pidfd` becomes readable when the child is dead; None without pidfds."""

    def __init__(self, pid: int, status_fd: int, stacks_fd: int, log: LogLine) -> None:
        self.pid = pid
        self.started_at = time.monotonic()
        self._reports = Reports(status_fd)
        self.stacks = Stacks(stacks_fd)
        self._log = log
        try:
            self.pidfd: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # An old kernel, or no descriptor left: SIGCHLD tells as well, with a look at each child.
            self.pidfd = None

    @property
    def status_fd(self) -> int:
        return self._reports.fd

    @property
    def has_hung_up(self) -> bool:
        """Nothing more will come on `status_fd`. The child itself may live on."""
        return self._reports.ended

    def reports(self) -> list[Report]:
        return self._reports.read()

    def send(self, *numbers: int) -> None:
        """Signals, in order. The pid is ours until `ending` has told the end, so it hits nobody else."""
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wake(self) -> None:
        """A stopped process (SIGSTOP) sees no signal but SIGKILL."""
        self.send(signal.SIGCONT)

    def ending(self) -> Ending | None:
        """How it ended, once; None while it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return Ending()  # somebody else in this process has waited for it
        return ending_of(status) if pid else None

    def close(self, log_timeout: float) -> None:
        """After its end. Waits at most `log_timeout` seconds for its last log lines."""
        self.close_descriptors()
        self._log.close_in_master(log_timeout)

    def close_descriptors(self) -> None:
        """Also for a child of the same master: these are not its own."""
        self._reports.close()
        self.stacks.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
