"""Processes that nobody asked for: what handlers have started and left behind becomes a child of the master."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress


def reap(ours: Callable[[int], bool]) -> None:
    """Reap strangers that have ended. `ours` is told each pid: True when it has seen to it."""
    seen: set[int] = set()
    while True:
        try:
            # A look only: the ends of our own children are for those who know them.
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None or info.si_pid in seen:
            return
        seen.add(info.si_pid)
        if not ours(info.si_pid):
            with suppress(ChildProcessError):
                os.waitpid(info.si_pid, os.WNOHANG)


def children() -> list[int]:
    """The pids of all children of this process (proc(5)); none where the kernel does not tell."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb") as file:
                found += [int(pid) for pid in file.read().split()]
    return found


def end_all(patience: float, ours: Collection[int] = ()) -> list[int]:
    """SIGTERM to every child that is left, and SIGKILL `patience` seconds later; gives the strangers among them.

    At the very end only: it waits. `ours`: children that are leaving by themselves. The children of one that ends
    become ours in turn: also they are told.
    """
    strangers: list[int] = []
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while left := _living():
            for pid in [pid for pid in left if pid not in told]:
                told.add(pid)
                if pid not in ours and pid not in strangers:
                    strangers.append(pid)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
            if time.monotonic() >= deadline:
                break
            time.sleep(0.005)
    return strangers


def _living() -> list[int]:
    """The children that are there once those that have ended are reaped."""
    _reap_any()
    return children()


def _reap_any() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
