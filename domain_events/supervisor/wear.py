"""When a child has done enough and should be replaced by a fresh one: by events, age or memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from domain_events.jitter import between

_JITTER = 0.1
_LOOK = 1.0  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifespan:
    """None: no limit. `age` in seconds, `rss` (resident memory) in bytes."""

    events: int | None = None
    age: float | None = None
    rss: int | None = None

    def jittered(self) -> Lifespan:
        """Up to a tenth more or less: children that were born together do not leave together."""
        factor = between(1 - _JITTER, 1 + _JITTER)
        return replace(
            self,
            events=None if self.events is None else max(1, round(self.events * factor)),
            age=None if self.age is None else self.age * factor,
            rss=None if self.rss is None else round(self.rss * factor),
        )


class Wear:
    """Counts in a child, and says once that it is worn."""

    def __init__(self, lifespan: Lifespan, worn: Callable[[str], None]) -> None:
        """`worn` is told the reason, once. It may be called in any thread."""
        self._span = lifespan
        self._worn = worn
        self._began = time.monotonic()
        self._events = 0
        self._looked_at = self._began
        self._is_worn = False

    @property
    def minds_events(self) -> bool:
        """Whether it wants to be told of each event."""
        return self._span.events is not None or self._span.rss is not None

    @property
    def is_worn(self) -> bool:
        return self._is_worn

    def event_done(self) -> None:
        """To be called between events."""
        self._events += 1
        if self._span.events is not None and self._events >= self._span.events:
            self._end(f"{self._events} events")
        elif self._span.rss is not None:
            self.time_passed()

    def time_passed(self) -> None:
        """To be called now and then."""
        now = time.monotonic()
        if self._span.age is not None and now - self._began >= self._span.age:
            self._end(f"{now - self._began:.0f} s old")
        elif self._span.rss is not None and now - self._looked_at >= _LOOK:
            self._looked_at = now
            rss = resident_memory(os.getpid())
            if rss is not None and rss >= self._span.rss:
                self._end(f"{rss // 2**20} MiB of memory")

    def _end(self, reason: str) -> None:
        if not self._is_worn:
            self._is_worn = True
            self._worn(reason)


def resident_memory(pid: int) -> int | None:
    """Bytes, shared pages included (proc(5)); None when there is no such process."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
