"""Processes as we wrote them down: signalled only while pid, start time and boot are still the same."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TypedDict


class Process(TypedDict):
    pid: int
    started: str
    boot: str


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)), [] when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity(pid: int) -> Record:
    return {"pid": pid, "started": (stat(pid) or [""] * 20)[19], "boot": boot()}


def runs(process: Record | None) -> bool:
    if not process or process["boot"] != boot():
        return False
    fields = stat(process["pid"])
    return bool(fields) and fields[0] not in "ZX" and fields[19] == process["started"]


def send(process: Record | None, signum: int) -> None:
    if process and runs(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signum)


def wait_gone(processes: list[Record], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while any(runs(process) for process in processes):
        if time.monotonic() > limit:
            return False
        with contextlib.suppress(ChildProcessError):  # those we started ourselves are ours to reap
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)
    return True
