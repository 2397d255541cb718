"""Why a child was replaced, as a label of a metric: a small closed set. Pure."""

from __future__ import annotations

import enum
import signal
from typing import Protocol

from domain_events.supervisor.exits import ChildExit, Ending, signal_name


class Cause(enum.StrEnum):
    """A death by a signal has the signal's name instead, unless the child had not booted or was found to hang."""

    BOOT = "boot"  # it did not boot, or not in time
    CONFIGURATION = "configuration"  # the broker or the settings refuse it: a person must change something
    CRASH = "crash"  # an error has ended the consumer (exit 70)
    EXIT = "exit"  # any other exit code that nobody has asked for
    FORK = "fork"  # there was no process to be had
    HANG = "hang"  # no sign of life for --hang-timeout
    TIMEOUT = "timeout"  # a handler took longer than the `timeout=` of its receiver
    RECYCLE = "recycle"  # --max-events, --max-age, --max-rss
    RELOAD = "reload"
    RESTART = "restart"  # an operator has asked for it
    UNKNOWN = "unknown"  # somebody else has reaped it


USUAL = (
    *(cause.value for cause in Cause),
    *(number.name for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)),
)
"""Those that are counted from the beginning: what begins with its first case hides that case from `increase()`."""


class Slot(Protocol):
    @property
    def hung(self) -> str: ...
    @property
    def booted(self) -> bool: ...


def cause_of(slot: Slot, ending: Ending, *, in_hand: bool) -> str:
    """Of a child that was not told to leave. `slot` as it was before; `in_hand`: whether it had an event."""
    if slot.hung:
        return Cause.TIMEOUT if slot.hung.startswith("timeout") else Cause.HANG
    # With an event in hand it is no word of ours: a handler has ended the process with this number.
    if ending.code == ChildExit.CONFIGURATION and not in_hand:
        return Cause.CONFIGURATION
    if ending.code == ChildExit.RECYCLED and not in_hand:
        return Cause.RECYCLE
    if not slot.booted:
        return Cause.BOOT
    if ending.signal is not None:
        return signal_name(ending.signal)
    match ending.code:
        case None:
            return Cause.UNKNOWN
        case ChildExit.CRASHED:
            return Cause.CRASH
        case _:
            return Cause.EXIT
