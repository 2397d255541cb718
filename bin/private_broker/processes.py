"""Processes as we wrote them down: signalled only while pid, start time and boot are still the same."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from private_broker.problem import Problem


class Process(TypedDict):
    pid: int
    started: str
    boot: str


def identity(pid: int) -> Process:
    """What tells this process from a later one with the same pid."""
    return {"pid": pid, "started": (_stat(pid) or [""] * 20)[19], "boot": _boot()}


def runs(process: Process | None) -> bool:
    if not process or process["boot"] != _boot():
        return False
    fields = _stat(process["pid"])
    return bool(fields) and fields[0] not in "ZX" and fields[19] == process["started"]


def send(process: Process | None, signum: int) -> None:
    """The signal, if it still is that process."""
    if process and runs(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signum)


def wait_gone(processes: Sequence[Process], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while any(runs(process) for process in processes):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def marked(mark: str) -> list[Process]:
    """The processes of this user that were started with `mark` (NAME=value) in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                process = identity(int(entry))  # first: what is read next is then this process's
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                if mark.encode() in environment and runs(process):
                    found.append(process)
    return found


def stands(process: Process) -> bool:
    """Whether it is stopped by a signal (SIGSTOP)."""
    return _stat(process["pid"])[:1] == ["T"]


def kill_marked(mark: str, whose: str) -> None:
    """SIGKILL to all that `marked` finds, until it finds none."""
    left: list[Process] = []
    for _ in range(10):  # a helper may have been forked while we looked
        left = marked(mark)
        if not left:
            return
        for process in left:
            send(process, signal.SIGKILL)
        wait_gone(left, 5)
    raise Problem(f"processes of {whose} that do not die: {[process['pid'] for process in left]}")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); [] when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
