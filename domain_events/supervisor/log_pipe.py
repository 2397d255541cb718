"""The handler of a child's root logger, and the reader at the other end of its pipe.

Why a pipe of `multiprocessing` and not its `Queue`: `Queue.put` takes a lock that is not reentrant, so a log
call in a signal handler that interrupts a log call would never return; it pickles; and it brings three
semaphores that one writer and one reader do not need. The buffer is a `queue.SimpleQueue`: its `put` may be
interrupted by itself. On the pipe, a frame is a record (JSON) or a number of dropped records.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Pipe
from queue import Empty, SimpleQueue

from multiprocessing_logging import MultiProcessingHandler

from domain_events.supervisor import lines
from domain_events.supervisor.records import FRAME_LIMIT, from_bytes, to_bytes
from domain_events.supervisor.stderr import StderrHandler

_log = logging.getLogger(__name__)

_DROPPED = "log_records_dropped"
_REPORT_DELAY = 1.0  # from the first dropped record that is noticed to the report of all of them


class PipeHandler(MultiProcessingHandler):  # type: ignore[misc]  # the package has no types
    """Forwards records through a pipe; the same object on both sides of the fork."""

    def __init__(self, name: str, bound: int) -> None:
        # Not the base's own: it makes a queue of the default start method (since Python 3.14 forkserver) and
        # starts its thread at once, but this one is made before the fork.
        logging.Handler.__init__(self)
        self.sub_handler = StderrHandler()  # where records go that cannot be forwarded
        self.queue: SimpleQueue[bytes | None] = SimpleQueue()
        self.reader, self.writer = Pipe(duplex=False)
        self._child = name
        self._bound = bound
        self._dropped = Counter()
        self._reported = 0
        self._report_at: float | None = None
        self._is_closed = False
        self._is_broken = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def close_ends(self) -> None:
        self.reader.close()
        self.writer.close()

    def close(self) -> None:
        """Called by `logging.shutdown`, which knows nothing of sides. The ends are closed by their owner."""
        logging.Handler.close(self)

    # In the master.

    def start_receiving(self) -> None:
        try:
            self._thread = start_thread("log-reader", self._receive)
        except RuntimeError as error:
            self.reader.close()  # EPIPE sends the child to its stderr
            _log.warning("no thread for the logs of %s, which will log to stderr: %s", self._child, error)

    def _receive(self) -> None:
        malformed = 0
        while True:
            try:
                frame = self.reader.recv_bytes(FRAME_LIMIT)
            except (EOFError, OSError):  # the end, perhaps in the middle of a record: the child was killed
                break
            if frame.isdigit():
                self._log_dropped(int(frame))
                continue
            try:
                record = from_bytes(frame)
            except ValueError:
                malformed += 1
            else:
                _to_sinks(record)
        if malformed:
            self._log_dropped(malformed)

    def _log_dropped(self, n: int) -> None:
        _log.warning("%s", lines.to_text(_DROPPED, slot=self._child, n=n))

    # In the child.

    def start_sending(self) -> None:
        try:
            self._thread = start_thread("log-sender", self._feed)
        except RuntimeError:  # no more threads for us
            self.detach()

    def handle(self, record: logging.LogRecord) -> bool:
        """As in `logging`, but without the lock: `emit` needs none. Nobody waits for a slow `repr()`."""
        kept = self.filter(record)
        if isinstance(kept, logging.LogRecord):  # since Python 3.12 a filter may replace the record
            record = kept
        if kept:
            self.emit(record)
        return bool(kept)

    def _format_record(self, record: logging.LogRecord) -> bytes:
        return to_bytes(record)

    def _send(self, frame: bytes) -> None:
        if self._is_closed:
            self.sub_handler.handle(from_bytes(frame))
        elif self.queue.qsize() >= self._bound:
            self._dropped.add()
        else:
            self.queue.put(frame)

    def _feed(self) -> None:
        while True:
            delay = self._until_report()
            if delay == 0:
                self._report()
                continue
            try:
                frame = self.queue.get(timeout=delay)
            except Empty:
                continue
            if frame is None:
                break
            self._forward(frame)
        while not self.queue.empty():  # logged while we were told to stop
            if frame := self.queue.get():
                self._forward(frame)
        self._report()
        self.writer.close()

    def _forward(self, frame: bytes) -> None:
        if not self._write(frame) and not self.sub_handler.handle(from_bytes(frame)):
            self._dropped.add()

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
        if n and not self._write(b"%d" % n):
            self._say_dropped(n)

    def _write(self, frame: bytes) -> bool:
        if not self._is_broken:
            try:
                self.writer.send_bytes(frame)
            except OSError:  # EPIPE: the master is gone
                self._is_broken = True
        return not self._is_broken

    def stop_sending(self, timeout: float) -> None:
        self._is_closed = True
        self.queue.put(None)
        self.join(timeout)
        if self.running:  # nobody reads: what waits and what is in the sender's hand is lost with us
            waiting = max(self.queue.qsize() - 1, 0)  # without the None
            self._say_dropped(self._dropped.value() - self._reported + waiting + 1)

    def detach(self) -> None:
        """From here on to stderr: this process has no sender."""
        self._is_closed = True
        self.writer.close()

    def _say_dropped(self, n: int) -> None:
        text = lines.to_text(_DROPPED, slot=self._child, n=n)
        self.sub_handler.handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))


class Counter:
    """Counts exactly, without a lock, also when a signal handler that counts interrupts the counting.

    `next` of an `itertools.count` is one step for the interpreter. It is also the only way to see the value,
    so the looks are counted and taken off.
    """

    def __init__(self) -> None:
        self._steps = count()
        self._looks = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        next(self._steps)

    def value(self) -> int:
        """How many there were. Not for signal handlers."""
        with self._lock:
            steps = next(self._steps) - self._looks
            self._looks += 1
            return steps


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """A daemon thread without signals: those that ask for something must interrupt the main thread."""
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
    thread = threading.Thread(target=target, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def _to_sinks(record: logging.LogRecord) -> None:
    sinks = logging.getLogger().handlers
    if not sinks and logging.lastResort is not None:
        sinks = [logging.lastResort]
    for sink in sinks[:]:
        if record.levelno >= sink.level:
            try:
                sink.handle(record)
            except Exception:  # noqa: BLE001  foreign code: whatever handler or filter somebody has configured
                sink.handleError(record)
