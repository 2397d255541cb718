"""What a child says of itself on its status pipe: one short line for each change."""

from __future__ import annotations

import contextlib
import os

from domain_events.supervisor.slots import Booted, Consuming, Waiting

_LONGEST_REASON = 300  # characters; a line stays below PIPE_BUF (4096 bytes), so it is written whole or not


class Reporter:
    """The child's side. Says nothing twice."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._last = ""

    def booted(self) -> bool:
        return self._say("booted")

    def consuming(self) -> bool:
        return self._say("consuming")

    def waiting(self, reason: str) -> bool:
        return self._say(f"waiting {' '.join(reason.split())[:_LONGEST_REASON]}")

    def _say(self, line: str) -> bool:
        """Whether this is news."""
        if line == self._last:
            return False
        self._last = line
        # Full: the master has been stopped for long, the next change tells it more. Broken: it is gone.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._fd, f"{line}\n".encode(errors="replace"))
        return True


class Reports:
    """The master's side: lines from a non-blocking pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        self._rest = b""

    def read(self) -> list[Booted | Consuming | Waiting]:
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


def _parse(line: str) -> Booted | Consuming | Waiting | None:
    word, _, rest = line.partition(" ")
    match word:
        case "booted":
            return Booted()
        case "consuming":
            return Consuming()
        case "waiting":
            return Waiting(rest)
        case _:
            return None  # written into our pipe by somebody else: no reason to end the master
