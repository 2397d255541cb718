"""The writing end of the pipe of a child: a log call writes it itself, or leaves the record to a thread.

Itself, as long as the pipe takes the record at once: then it is out of the process, whatever kills that next.
Otherwise it goes into a bounded buffer, which the thread "log-sender" empties. No log call ever waits, and none
takes a lock: it may stand in a signal handler that has interrupted a log call, or that raises in the middle.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from domain_events.supervisor import lines
from domain_events.supervisor.counting import Counter
from domain_events.supervisor.log_frames import Addressed, pack_dropped, unpack
from domain_events.supervisor.packets import MAX_PAYLOAD, packet, packets
from domain_events.supervisor.stderr import StderrHandler
from domain_events.supervisor.threads import start_thread

_REPORT_DELAY = 1.0  # from the first dropped record that is noticed to the report of all of them
_BIG = 16 * 1024  # bytes that count as one record
_PEN_TIMEOUT = 1.0  # seconds; a stderr that nobody empties takes half of it


class _LetGo(Exception):
    """For the thread: `stop` waits no longer."""


class LogSender:
    """Made before the fork, started after it."""

    def __init__(self, slot: str, fd: int, bound: int) -> None:
        """`slot`: of the child, for the logs; `bound`: how many records may wait, others are dropped."""
        self.fd = fd  # of the pipe
        self.stderr = StderrHandler()  # where records go that cannot be sent
        self._slot = slot
        self._bound = bound
        # What waits. The thread takes the first one away when it has written it: while it has one in hand, the
        # buffer is not empty, and who comes later goes behind it.
        self._buffer: deque[bytes] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()  # not an Event: its `set` takes a lock
        self._dropped = Counter()
        self._reported = 0
        self._report_at: float | None = None
        # Who has it decides what becomes of the buffer and of the count: the thread, unless it waits, and then
        # `stop`. Without it each could take the other for the one that says what is lost. No log call takes it.
        self._pen = threading.Lock()
        self._is_stopped = False
        self._is_over = False  # the thread shall let go
        self._is_settled = False  # nobody looks at the buffer any more
        self._is_broken = False
        self._last_on_stderr: dict[str, object] = {}
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """The end of the pipe, in a process that does not send. One that does holds it until it ends: a thread that
        is about to write would else hit whatever file has got the number."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def start(self) -> None:
        os.set_blocking(self.fd, False)
        try:
            self._thread = start_thread("log-sender", self._feed)
        except RuntimeError:  # no more threads for us
            self.detach()

    def detach(self) -> None:
        """From here on to stderr: this process has no sender, and no thread that could be about to write."""
        self._is_stopped = True
        self._thread = None
        self.close()

    def send(self, payload: bytes) -> None:
        """Never waits, as long as the sender runs."""
        if self._is_stopped:
            self._to_stderr(payload)
        elif self._buffer or self._is_broken or len(payload) > MAX_PAYLOAD or not self._write_at_once(payload):
            self._leave(payload)

    def drop(self) -> None:
        """One record is lost."""
        self._dropped.add()

    def stop(self, timeout: float) -> None:
        """Wait until all is written, at most `timeout` seconds, and say on stderr how many records are lost.

        What is sent from then on goes to stderr. May be called again, by any thread.
        """
        self._is_stopped = True
        self._wake.put(None)
        thread = self._thread
        if thread is None:
            return
        if not self._is_over:
            thread.join(timeout)
        is_late = thread.is_alive()
        self._is_over = True
        if self._pen.acquire(timeout=_PEN_TIMEOUT):  # else its formatter hangs, and would here
            try:
                self._settle(is_late)
            finally:
                self._pen.release()

    def _settle(self, is_late: bool) -> None:
        self._is_settled = True
        n = self._dropped.value() - self._reported
        self._reported += n
        with suppress(IndexError):
            while True:
                payload = self._buffer.popleft()
                # Nobody reads: what waits is lost with us. Else it is of threads that were a little late.
                n += bool(payload) if is_late else not self._to_stderr(payload)
        if n:
            self._say_dropped(n)

    def _write_at_once(self, payload: bytes) -> bool:
        try:
            os.write(self.fd, packet(payload))
        except BlockingIOError:
            return False
        except OSError:  # EPIPE: the master is gone
            self._is_broken = True
            return False
        return True

    def _leave(self, payload: bytes) -> None:
        if len(self._buffer) >= self._bound:
            self.drop()
            return
        self._buffer.append(payload)
        for _ in range(len(payload) // _BIG):
            self._buffer.append(b"")  # so that big ones take up more of the bound
        self._wake.put(None)
        if self._is_settled:  # meanwhile
            with suppress(IndexError):
                self._to_stderr(self._buffer.popleft())

    def _feed(self) -> None:
        with suppress(_LetGo), self._pen:
            self._feed_with_pen()

    def _feed_with_pen(self) -> None:
        while not self._is_stopped or self._buffer:
            delay = self._until_report()
            if delay == 0:
                self._report()
                continue
            with self._pen_down(), suppress(Empty):
                self._wake.get(timeout=delay)
            while self._buffer:
                if payload := self._buffer[0]:
                    self._forward(payload)
                self._buffer.popleft()
                if self._until_report() == 0:
                    self._report()
        self._report()

    def _forward(self, payload: bytes) -> None:
        if not self._write(payload) and not self._to_stderr(payload):
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
        if n and not self._write(pack_dropped(n, os.getpid())):
            self._say_dropped(n)
        self._reported += n  # not earlier: it may never be written
        self._report_at = None

    def _write(self, payload: bytes) -> bool:
        """Waits. False when there is no reader any more: the master is gone."""
        for piece in packets(payload):
            if self._is_over:
                raise _LetGo
            while not self._is_broken:
                try:
                    os.write(self.fd, piece)
                    break
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self.fd, select.POLLOUT)
                    with self._pen_down():
                        poll.poll()
                except OSError:  # EPIPE
                    self._is_broken = True
        return not self._is_broken

    @contextmanager
    def _pen_down(self) -> Iterator[None]:
        """While the thread waits."""
        self._pen.release()
        try:
            yield
        finally:
            self._pen.acquire()
        if self._is_over:
            raise _LetGo

    def _to_stderr(self, payload: bytes) -> bool:
        if not payload:
            return True
        addressed = unpack(payload)
        assert isinstance(addressed, Addressed)
        said = vars(addressed.record)
        if said == self._last_on_stderr:
            return True  # the same record, for the sinks of another logger
        self._last_on_stderr = said.copy()  # formatters add to it
        return self.stderr.handle(addressed.record)

    def _say_dropped(self, n: int) -> None:
        text = lines.dropped(self._slot, n, os.getpid())
        self.stderr.handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))
