"""The named exit codes of master and child, and how a process ended.

The numbers below 80 are those of sysexits.h where it has one for the case.
"""

from __future__ import annotations

import enum
import os
import signal
from dataclasses import dataclass


class MasterExit(enum.IntEnum):
    """What the supervisor says to whoever started it."""

    CLEAN = 0
    USAGE = 64  # a flag or an argument makes no sense
    INTERNAL = 70  # an error of ours
    LOCKED = 73  # another master holds the lock, or the lock file cannot be made
    ALL_FAILING = 75  # every receiver failed for --give-up-after; starting again later may help
    CONFIGURATION = 78  # import, receivers or broker URL; nothing was forked
    FORCED = 80  # something was cut: a handler, or a child that did not leave by itself


class ChildExit(enum.IntEnum):
    """What a child says to its master."""

    DRAINED = 0  # on request; without one it is a crash
    CRASHED = 70
    BOOT_FAILED = 71
    RECYCLED = 75
    CONFIGURATION = 78  # trying again cannot help, a person must change something
    FORCED = 80  # a handler was cut
    ORPHANED = 81  # the master went away; what was in hand is settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process ended: with a code, by a signal, or unknown when somebody else has reaped it."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return signal_name(self.signal)
        return "an unknown end" if self.code is None else f"exit {self.code}"


def ending_of(status: int) -> Ending:
    """The ending that a status of waitpid(2) tells."""
    return ending_of_code(os.waitstatus_to_exitcode(status))


def ending_of_code(code: int) -> Ending:
    """The ending that a return code of subprocess tells: a signal's number is negative."""
    return Ending(signal=-code) if code < 0 else Ending(code=code)


def signal_name(number: int) -> str:
    """As `SIGKILL`; real-time signals have no names of their own and stay numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
