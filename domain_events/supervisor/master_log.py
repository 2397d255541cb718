"""What the master itself logs, written by a thread: its loop must not wait for whoever reads the log.

A pipe that nobody empties would otherwise hold up every restart, and the stop.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from domain_events.supervisor import lines
from domain_events.supervisor.log_pipe import Counter, start_thread

_CLOSE_TIMEOUT = 2.0  # seconds


class MasterLog:
    """From `__enter__` on, the records of this package go to the thread "log-writer", which hands them on.

    Records of children do not come this way: the log readers may wait, and the children's own buffers with them.
    """

    def __init__(self, bound: int = 1000) -> None:
        """`bound`: how many records may wait, others are dropped and counted."""
        self._logger = logging.getLogger(__package__)
        self._handler = _Queueing(bound)
        self._thread: threading.Thread | None = None
        self._master = os.getpid()

    def __enter__(self) -> Self:
        try:
            self._thread = start_thread("log-writer", self._write_all)
        except RuntimeError:  # no more threads: then without
            return self
        self._logger.addHandler(self._handler)
        self._logger.propagate = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Master: wait until all is written, at most `timeout` seconds. Child: let it go."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if os.getpid() == self._master:
            self._handler.queue.put(None)
            thread.join(timeout)
            if thread.is_alive():
                return  # nobody reads, and whoever logs now shall not wait for that either
        self.restore()

    def restore(self) -> None:
        """Records go their own way again."""
        self._logger.propagate = True
        self._logger.removeHandler(self._handler)

    def _write_all(self) -> None:
        reported = 0
        while (record := self._handler.queue.get()) is not None:
            self._write(record)
            if dropped := self._handler.dropped.value() - reported:
                reported += dropped
                text = lines.to_text("log_records_dropped", slot="master", n=dropped)
                self._write(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))

    def _write(self, record: logging.LogRecord) -> None:
        above = self._logger.parent
        try:
            if above is not None:
                above.callHandlers(record)
        except Exception:  # noqa: BLE001  foreign code: whatever handler or filter somebody has configured
            self._handler.handleError(record)


class _Queueing(logging.Handler):
    def __init__(self, bound: int) -> None:
        super().__init__()
        self.queue: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self.dropped = Counter()
        self._bound = bound

    def handle(self, record: logging.LogRecord) -> bool:
        """As in `logging`, but without the lock: nobody waits."""
        if self.queue.qsize() < self._bound:
            self.queue.put(record)
        else:
            self.dropped.add()
        return True
