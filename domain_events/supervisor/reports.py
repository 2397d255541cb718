"""What a child says of itself on its status pipe: one short line for each change."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TypeAlias

from domain_events.showing import one_line
from domain_events.supervisor.slots import Booted, Consuming, Waiting


@dataclass(frozen=True, slots=True)
class Worn:
    """The child has done enough and wants to be replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Delayed:
    """The child has retried an event, for the first time with this delay in milliseconds."""

    delay: int


Report: TypeAlias = Booted | Consuming | Waiting | Worn | Delayed

_LONGEST_REASON = 300  # characters; a line stays below PIPE_BUF (4096 bytes), so it is written whole or not


class Reporter:
    """The child's side. Says nothing twice."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._last = ""
        self.is_cut = False
        """Whether nobody listens any more: the master has given us up, or is gone."""

    def booted(self) -> bool:
        return self._say("booted")

    def consuming(self) -> bool:
        return self._say("consuming")

    def waiting(self, reason: str) -> bool:
        return self._say(f"waiting {one_line(reason, _LONGEST_REASON)}")

    def worn(self, reason: str) -> bool:
        return self._say(f"worn {one_line(reason, _LONGEST_REASON)}")

    def delayed(self, delay: int) -> None:
        self._write(f"delayed {delay}")

    def _say(self, line: str) -> bool:
        """Whether this is news."""
        if line == self._last:
            return False
        self._last = line
        self._write(line)
        return True

    def _write(self, line: str) -> None:
        try:
            # Full: the master has been stopped for long, the next change tells it more.
            with contextlib.suppress(BlockingIOError):
                os.write(self._fd, f"{line}\n".encode(errors="replace"))
        except BrokenPipeError:
            self.is_cut = True


class Reports:
    """The master's side: lines from a non-blocking pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        self._rest = b""

    def read(self) -> list[Report]:
        """What has arrived since the last call. `ended` is set when nothing can come any more."""
        try:
            while data := os.read(self.fd, 65536):
                self._rest += data
            self.ended = True
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [report for line in lines if (report := _parse(line.decode(errors="replace")))]

    def close(self) -> None:
        os.close(self.fd)


def _parse(line: str) -> Report | None:
    word, _, rest = line.partition(" ")
    match word:
        case "booted":
            return Booted()
        case "consuming":
            return Consuming()
        case "waiting":
            return Waiting(rest)
        case "worn":
            return Worn(rest)
        case "delayed" if rest.isascii() and rest.isdecimal():
            return Delayed(int(rest))
        case _:
            return None  # written into our pipe by somebody else: no reason to end the master
