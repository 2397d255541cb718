"""What processes cost: CPU of one, of a session of them, of the broker; memory.

CPU comes from the clocks that Linux has for each process (clock_getcpuclockid(3)), in nanoseconds and for all its
threads, of its children only those that still run: what has ended within a session counts in ticks of 10 ms.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

TICKS = os.sysconf("SC_CLK_TCK")
LISTEN = "0A"  # st of /proc/net/tcp


def cpu_of(pid: int) -> float:
    """Seconds that the process has used, all threads. Raises OSError when there is none."""
    return time.clock_gettime(((~pid) << 3) | 2)


def session_of(leader: int) -> list[int]:
    """The processes of the session that `leader` began."""
    return [pid for pid in _processes() if (fields := _stat(pid)) and int(fields[3]) == leader]


def descendants_of(pid: int) -> list[int]:
    """Children, and theirs, whatever session they are in."""
    parents = {process: int(fields[1]) for process in _processes() if (fields := _stat(process))}
    found = [pid]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def pss_of(pid: int) -> float:
    """MiB of memory, what it shares with others in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"(?m)^Pss: +(\d+)", text)[0]) / 1024


def broker_pid(url: str) -> int | None:
    """The Erlang node that listens on the port of `url`. None when that is not on this machine, or not ours to see."""
    port = urlsplit(url).port or 5672
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if os.path.exists(table) else ():
            columns = line.split()
            if columns[3] == LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    for pid in _processes():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() != "beam.smp":
                continue
            if any(os.readlink(entry.path) in inodes for entry in os.scandir(f"/proc/{pid}/fd")):
                return pid
        except OSError:
            continue
    return None


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so much of them do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


@dataclass(slots=True)
class Span:
    """From its making to `end`: wall clock and CPU of the processes that were there, looked up beforehand."""

    pids: Sequence[int]
    broker: int | None = None
    _children: float = field(init=False)
    _cpu: dict[int, float] = field(init=False)
    _broker: float = field(init=False)
    _wall: float = field(init=False)

    def __post_init__(self) -> None:
        self._children = _ended_children(self.pids)
        self._cpu = {pid: cpu_of(pid) for pid in self.pids}
        self._broker = cpu_of(self.broker) if self.broker else 0.0
        self._wall = time.monotonic()

    def end(self) -> Cost:
        wall = time.monotonic()
        broker = cpu_of(self.broker) if self.broker else None
        cpu = sum(cpu_of(pid) - self._cpu[pid] for pid in self.pids)
        # Last, because it reads files, which is our own work and no peer's.
        return Cost(
            seconds=wall - self._wall,
            cpu=cpu + _ended_children(self.pids) - self._children,
            broker_cpu=None if broker is None else broker - self._broker,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """All in seconds."""

    seconds: float
    cpu: float
    broker_cpu: float | None

    def per_event(self, events: int) -> dict[str, float]:
        """What a table shows: events per second, and microseconds of CPU for each of them."""
        values = {"events_per_second": events / self.seconds, "client_cpu_us": self.cpu / events * 1e6}
        if self.broker_cpu is not None:
            values["broker_cpu_us"] = self.broker_cpu / events * 1e6
        return values


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """From the state on, as proc(5) numbers them from 3: [1] is the parent, [3] the session. None: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _ended_children(pids: Sequence[int]) -> float:
    """Seconds of CPU of what they have waited for."""
    found = [fields for pid in pids if (fields := _stat(pid))]
    return sum(int(fields[13]) + int(fields[14]) for fields in found) / TICKS
