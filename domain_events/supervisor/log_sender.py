"""The writing end of the pipe of a child: a bounded buffer, and a thread that empties it.

Why a pipe of `multiprocessing` and not its `Queue`: `Queue.put` takes a lock that is not reentrant, so a log
call in a signal handler that interrupts a log call would never return; it pickles; and it brings three
semaphores that one writer and one reader do not need. The buffer is a `queue.SimpleQueue`: its `put` may be
interrupted by itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

from domain_events.supervisor import lines
from domain_events.supervisor.counting import Counter
from domain_events.supervisor.log_frames import Addressed, pack_dropped, unpack
from domain_events.supervisor.stderr import StderrHandler
from domain_events.supervisor.threads import start_thread

_REPORT_DELAY = 1.0  # from the first dropped record that is noticed to the report of all of them


class LogSender:
    """Made before the fork, started after it."""

    def __init__(self, slot: str, writer: Connection, bound: int) -> None:
        """`slot`: of the child, for the logs; `bound`: how many frames may wait, others are dropped."""
        self.stderr = StderrHandler()  # where records go that cannot be sent
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._slot = slot
        self._writer = writer
        self._bound = bound
        self._dropped = Counter()
        self._reported = 0
        self._report_at: float | None = None
        self._is_closed = False
        self._is_broken = False
        self._last_on_stderr: dict[str, object] = {}
        self._thread: threading.Thread | None = None

    @property
    def fd(self) -> int:
        return self._writer.fileno()

    def close(self) -> None:
        """The end of the pipe, on the side that does not send."""
        self._writer.close()

    def start(self) -> None:
        try:
            self._thread = start_thread("log-sender", self._feed)
        except RuntimeError:  # no more threads for us
            self.detach()

    def detach(self) -> None:
        """From here on to stderr: this process has no sender."""
        self._is_closed = True
        self._writer.close()

    def send(self, frame: bytes) -> None:
        """Never waits."""
        if self._is_closed:
            self._to_stderr(frame)
        elif self._queue.qsize() >= self._bound:
            self.drop()
        else:
            self._queue.put(frame)

    def drop(self) -> None:
        """One record is lost."""
        self._dropped.add()

    def stop(self, timeout: float) -> None:
        """Wait until all is written, at most `timeout` seconds. What is sent from then on goes to stderr."""
        self._is_closed = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():  # nobody reads: what waits and what is in its hand is lost with us
                waiting = max(self._queue.qsize() - 1, 0)  # without the None
                self._say_dropped(self._dropped.value() - self._reported + waiting + 1)

    def _feed(self) -> None:
        while True:
            delay = self._until_report()
            if delay == 0:
                self._report()
                continue
            try:
                frame = self._queue.get(timeout=delay)
            except Empty:
                continue
            if frame is None:
                break
            self._forward(frame)
        while not self._queue.empty():  # sent while we were told to stop
            if frame := self._queue.get():
                self._forward(frame)
        self._report()
        self._writer.close()

    def _forward(self, frame: bytes) -> None:
        if not self._write(frame) and not self._to_stderr(frame):
            self.drop()

    def _until_report(self) -> float | None:
        """Seconds to the next report of dropped records, None when there are none."""
        if self._dropped.value() == self._reported:
            return None
        now = time.monotonic()
        if self._report_at is None:
            self._report_at = now + _REPORT_DELAY
        return max(0.0, self._report_at - now)

    def _report(self) -> None:
        n = self._dropped.value() - self._reported
        self._reported += n
        self._report_at = None
        if n and not self._write(pack_dropped(n, os.getpid())):
            self._say_dropped(n)

    def _write(self, frame: bytes) -> bool:
        if not self._is_broken:
            try:
                self._writer.send_bytes(frame)
            except OSError:  # EPIPE: the master is gone
                self._is_broken = True
        return not self._is_broken

    def _to_stderr(self, frame: bytes) -> bool:
        addressed = unpack(frame)
        assert isinstance(addressed, Addressed)
        said = vars(addressed.record)
        if said == self._last_on_stderr:
            return True  # the same record, for the sinks of another logger
        self._last_on_stderr = said.copy()  # formatters add to it
        return self.stderr.handle(addressed.record)

    def _say_dropped(self, n: int) -> None:
        text = lines.dropped(self._slot, n, os.getpid())
        self.stderr.handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))
