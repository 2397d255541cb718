"""What the master itself logs, written by a thread: its loop must not wait for whoever reads the log.

A pipe that nobody empties would otherwise hold up every restart, and the stop.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from domain_events.supervisor import lines
from domain_events.supervisor.counting import Counter
from domain_events.supervisor.sinks import StandIn, all_loggers, choose, loggers_with_handlers, replace, sinks_of, write
from domain_events.supervisor.threads import start_thread

_CLOSE_TIMEOUT = 2.0  # seconds

_Choice = tuple[logging.LogRecord, Sequence[logging.Handler]]


class MasterLog:
    """From `__enter__` on, what the main thread logs goes to the thread "log-writer", which calls the sinks.

    Other threads write as ever: the log readers may wait, and the children's own buffers with them.
    """

    def __init__(self, bound: int = 1000) -> None:
        """`bound`: how many records may wait, others are dropped and counted."""
        self._bound = bound
        self._queue: SimpleQueue[_Choice | None] = SimpleQueue()
        self._dropped = Counter()
        self._last_resort: logging.Handler | None = None
        self._thread: threading.Thread | None = None
        self._master = os.getpid()

    def __enter__(self) -> Self:
        try:
            self._thread = start_thread("log-writer", self._write_all)
        except RuntimeError:  # no more threads: then without
            return self
        for logger in all_loggers():
            if sinks := sinks_of(logger):
                replace(logger, _Queueing(sinks, self))
        self._last_resort = logging.lastResort
        if self._last_resort is not None:
            logging.lastResort = _Queueing([self._last_resort], self)
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
            self._queue.put(None)
            thread.join(timeout)
            if thread.is_alive():
                return  # nobody reads, and whoever logs now shall not wait for that either
        self.restore()

    @property
    def dropped(self) -> int:
        """Records so far."""
        return self._dropped.value()

    def restore(self) -> None:
        """Records go their own way again."""
        for logger in all_loggers() if os.getpid() == self._master else loggers_with_handlers():
            for handler in logger.handlers[:]:
                if isinstance(handler, _Queueing):
                    logger.removeHandler(handler)
                    for sink in handler.sinks:
                        logger.addHandler(sink)
        if isinstance(logging.lastResort, _Queueing):
            logging.lastResort = self._last_resort

    def take(self, choice: _Choice) -> None:
        """Never waits."""
        if self._queue.qsize() < self._bound:
            self._queue.put(choice)
        else:
            self._dropped.add()

    def _write_all(self) -> None:
        reported = 0
        while (choice := self._queue.get()) is not None:
            _write(choice)
            reported += self._report(reported)
        # What did not fit may not be counted yet when what did is written already.
        self._report(reported)

    def _report(self, reported: int) -> int:
        n = self._dropped.value() - reported
        if n:
            # This thread is not the main one: straight to the sinks.
            logging.getLogger(__name__).warning("%s", lines.dropped("master", n, self._master))
        return n


class _Queueing(logging.Handler, StandIn):
    def __init__(self, sinks: Sequence[logging.Handler], log: MasterLog) -> None:
        super().__init__()
        self.sinks = sinks
        self._log = log

    def handle(self, record: logging.LogRecord) -> bool:
        """As in `logging`, but without the lock: the main thread does not wait."""
        may_wait = threading.get_ident() != threading.main_thread().ident
        for kept, positions in choose(self.sinks, record):
            choice = kept, [self.sinks[position] for position in positions]
            if may_wait:
                _write(choice)
            else:
                self._log.take(choice)
        return True


def _write(choice: _Choice) -> None:
    record, sinks = choice
    for sink in sinks:
        write(sink, record)
