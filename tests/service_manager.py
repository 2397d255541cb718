"""systemd's side of sd_notify(3): what a service says, which process says it, and when systemd would lose patience."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import wait_until


@dataclass(frozen=True)
class Word:
    """One datagram. `at`: when it was read, in seconds of the monotonic clock; `speaker`: a pid."""

    text: str
    at: float
    speaker: int

    @property
    def value(self) -> str:
        return self.text.partition("=")[2]


class Manager:
    """Notes all that is said, in order."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self._listener = listener
        self.path = str(path)
        self.words: list[Word] = []

    def listen(self) -> list[str]:
        """All that has been said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self._listener.recvmsg(65536, socket.CMSG_SPACE(struct.calcsize("3i")))
                [(_, _, credentials)] = ancillary
                pid = struct.unpack("3i", credentials)[0]
                self.words.append(Word(data.decode(), time.monotonic(), pid))
        return [word.text for word in self.words]

    def wait(self, condition: Callable[[str], bool], what: str, after: int = 0, deadline: float = 60.0) -> str:
        """The first word for which it holds, from now on or from before, but not of the first `after`."""
        try:
            return wait_until(lambda: next(filter(condition, self.listen()[after:]), ""), deadline, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\nheard: {self.listen()}") from None

    def wait_word(self, text: str, after: int = 0) -> None:
        self.wait(lambda word: word == text, text, after)

    @property
    def speakers(self) -> set[int]:
        self.listen()
        return {word.speaker for word in self.words}

    def patience_ends(self, timeout: float, begin: float) -> float:
        """When a job that began then would be ended, with this timeout: EXTEND_TIMEOUT_USEC prolongs it, in time."""
        self.listen()
        end = begin + timeout
        for word in self.words:
            if word.text.startswith("EXTEND_TIMEOUT_USEC=") and begin <= word.at < end:
                end = max(end, word.at + int(word.value) / 1e6)
        return end


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """To be given to a service as NOTIFY_SOCKET=manager.path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.setblocking(False)
        path = tmp_path / "notify"
        listener.bind(str(path))
        yield Manager(listener, path)
