"""What the kernel tells of a process (proc(5))."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def title(pid: int) -> str:
    """As `ps` shows it; empty when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def lives(pid: int) -> bool:
    """Whether it is there and no zombie."""
    with contextlib.suppress(OSError):
        return _stat(pid)[0] not in "ZX"
    return False


def children(pid: int) -> list[int]:
    """Its direct children that live."""
    return [child for child in _children(pid) if lives(child)]


def zombies(pid: int) -> list[int]:
    """Its children that have ended, and that it has not waited for."""
    found = []
    for child in _children(pid):
        with contextlib.suppress(OSError):
            if _stat(child)[0] == "Z":
                found.append(child)
    return found


def descriptors(pid: int) -> dict[int, str]:
    """What is open, by number: files by their path, others as `pipe:[123]`."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def threads(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def own_memory(pid: int) -> int:
    """Bytes that it shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rows = [line.split() for line in text.splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(int(row[1]) for row in rows) * 1024


def waits(pid: int) -> int:
    """How often its threads have gone to sleep by themselves: each time, something has woken one up."""
    found = 0
    for thread in threads(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
            [line] = [line for line in text.splitlines() if line.startswith("voluntary_ctxt_switches")]
            found += int(line.split()[1])
    return found


def processor_seconds(pid: int) -> float:
    """Seconds of processor time, in user and in kernel mode."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Orphans become children of this process (prctl(2)): it can see how they end."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for thread in threads(pid):
            with contextlib.suppress(OSError):  # it has just ended
                found += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found


def _stat(pid: int) -> list[str]:
    """From the third field on: what comes before is a name that may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
