"""The stacks that a child's C code writes on a pipe of its own: at SIGUSR2, and when it dies of a fault.

Not on stderr: there it would wait for a reader, and nobody could attach it to what it tells about.
"""

from __future__ import annotations

import faulthandler
import os
import signal

LONGEST = 64 * 1024  # bytes, of one child until they are taken
QUIET = 0.1
"""Seconds without a new line, after which stacks are taken for complete."""


def write_stacks_to(fd: int) -> None:
    """In a child: from now on."""
    faulthandler.enable(file=fd, all_threads=True)
    faulthandler.register(signal.SIGUSR2, file=fd, all_threads=True, chain=False)


class Stacks:
    """The master's side of the pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        self.due: float | None = None  # when what has come is complete
        self.last = ""  # what was taken last, for whoever asks why this child died
        self._data = b""

    def read(self, now: float) -> None:
        """Take in what has arrived."""
        try:
            while data := os.read(self.fd, 65536):
                self._data = (self._data + data)[:LONGEST]
                self.due = now + QUIET
            self.ended = True
        except BlockingIOError:
            pass

    def take(self) -> str:
        """All that came since the last call; empty when there was nothing."""
        text = self._data.decode(errors="replace").rstrip()
        self._data = b""
        self.due = None
        if text:
            self.last = text
        return text

    def close(self) -> None:
        os.close(self.fd)
