"""The reading end of the pipe of a child: a thread of the master that hands what comes to the sinks."""

from __future__ import annotations

import logging
import threading
from multiprocessing.connection import Connection

from domain_events.supervisor import lines
from domain_events.supervisor.log_frames import FRAME_LIMIT, Addressed, Dropped, unpack
from domain_events.supervisor.sinks import Sinks, deliver
from domain_events.supervisor.threads import start_thread

_log = logging.getLogger(__name__)


class LogReader:
    def __init__(self, slot: str, reader: Connection, sinks: Sinks) -> None:
        """`slot`: of the child, for the logs."""
        self._slot = slot
        self._reader = reader
        self._sinks = sinks
        self._pid: int | None = None  # of the child, once it is known
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def close(self) -> None:
        """The end of the pipe, when nobody reads it."""
        self._reader.close()

    def start(self) -> None:
        try:
            self._thread = start_thread("log-reader", self._read_all)
        except RuntimeError as error:
            self._reader.close()  # EPIPE sends the child to its stderr
            _log.warning("no thread for the logs of %s, which will log to stderr: %s", self._slot, error)

    def _read_all(self) -> None:
        lost = 0
        while True:
            try:
                frame = self._reader.recv_bytes(FRAME_LIMIT)
            except (EOFError, OSError):  # the end, perhaps in the middle of a frame: the child was killed
                break
            try:
                self._take(frame)
            except (ValueError, LookupError):  # no frame, or for a sink that is not here
                lost += 1
        if lost:
            self._say_dropped(lost, self._pid)

    def _take(self, frame: bytes) -> None:
        match unpack(frame):
            case Dropped(n=n, pid=pid):
                self._say_dropped(n, pid)
            case Addressed(record=record) as addressed:
                if isinstance(record.process, int):
                    self._pid = record.process
                deliver(addressed, self._sinks)

    def _say_dropped(self, n: int, pid: int | None) -> None:
        _log.warning("%s", lines.dropped(self._slot, n, pid))
