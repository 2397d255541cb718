"""The reading end of the pipe of a child: a thread of the master that hands what comes to the sinks."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

from domain_events.supervisor import lines
from domain_events.supervisor.log_frames import FRAME_LIMIT, Addressed, Dropped, unpack
from domain_events.supervisor.packets import Unpacker
from domain_events.supervisor.sinks import Sinks, deliver
from domain_events.supervisor.threads import start_thread

_log = logging.getLogger(__name__)

_CHUNK = 16 * 1024  # bytes: what a master that is killed has read and not written


class LogReader:
    def __init__(self, slot: str, fd: int, sinks: Sinks, on_dropped: Callable[[int], object] = lambda n: None) -> None:
        """`slot`: of the child, for the logs; `fd`: of the pipe. `on_dropped` is told how many are lost."""
        self._slot = slot
        self._fd = fd
        self._sinks = sinks
        self._on_dropped = on_dropped
        self._pid: int | None = None  # of the child, once it is known
        self._only_counts = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def give_up(self) -> None:
        """From here on records are not written but counted: those that have come. Then it says how many, and ends."""
        self._only_counts = True

    def close(self) -> None:
        """The end of the pipe, when nobody reads it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def start(self) -> None:
        try:
            self._thread = start_thread("log-reader", self._read_all)
        except RuntimeError as error:
            self.close()  # EPIPE sends the child to its stderr
            _log.warning("no thread for the logs of %s, which will log to stderr: %s", self._slot, error)

    def _read_all(self) -> None:
        unpacker = Unpacker(FRAME_LIMIT)
        lost = 0
        # At the end there may be half a payload: the child was killed.
        while chunk := self._read():
            for payload in unpacker.feed(chunk):
                try:
                    lost += self._take(payload)
                except (ValueError, LookupError):  # no frame, or for a sink that is not here
                    lost += 1
        if lost:
            self._say_dropped(lost, self._pid)

    def _read(self) -> bytes:
        """Nothing at the end."""
        if self._only_counts:  # there may be a process that holds the pipe open
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            if not poll.poll(0):
                return b""
        return os.read(self._fd, _CHUNK)

    def _take(self, payload: bytes) -> int:
        """How many records are lost and not yet said to be."""
        match unpack(payload):
            case Dropped(n=n, pid=pid):
                self._pid = pid
                if self._only_counts:
                    return n
                self._say_dropped(n, pid)
            case Addressed(record=record) as addressed:
                if isinstance(record.process, int):
                    self._pid = record.process
                if self._only_counts:
                    return 1
                deliver(addressed, self._sinks)
        return 0

    def _say_dropped(self, n: int, pid: int | None) -> None:
        self._on_dropped(n)
        _log.warning("%s", lines.dropped(self._slot, n, pid))
