"""The log line from a child to its master: one private pipe for each, and sinks only in the master.

Why not `install_mp_handler()` of multiprocessing-logging: its one shared queue has a lock, and a child that
is SIGKILLed while it holds it silences every process for ever. Its handler is the base class of ours, see
log_pipe.py.

A log call in a child costs the making of a JSON text and never waits. The thread "log-sender" writes the
pipe; a thread "log-reader" of the master reads it and calls the sinks: the handlers of the master's root
logger, with their levels and filters. When the master dies, what is in the pipe (at most 64 KiB on Linux) is
lost, and what comes after goes to stderr.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from domain_events.supervisor.log_pipe import PipeHandler
from domain_events.supervisor.stderr import renew_stdio

_HOLD_TIMEOUT = 1.0  # for the locks of the sinks: one that is stuck must not keep the master from forking

_lines: set[LogLine] = set()  # those with open ends in this process; touched by the main thread only
_inherited_sinks: list[logging.Handler] = []  # kept by a child, for their finalizers could flush, close or wait


class LogLine:
    """One for each child, made in the master just before its fork. All calls come from the main thread.

    Master: `in_master`, and `close_in_master` after the child was reaped; `discard` when the fork failed.
    Child: `in_child`, and `close_in_child` before `os._exit`. What it forks itself logs to stderr directly.
    """

    def __init__(self, name: str, bound: int = 5000) -> None:
        """`name` of the child, for the logs; `bound`: how many records may wait in it, others are dropped."""
        self._handler = PipeHandler(name, bound)
        self._is_finished = False
        _lines.add(self)

    def in_master(self) -> None:
        """Begin to read."""
        self._handler.writer.close()  # else the reader would never see the end
        self._handler.start_receiving()

    def in_child(self) -> None:
        """Give the root logger one handler, which forwards to the master, and the process fresh stdio."""
        # The siblings' reading ends came with the fork. Left open they would hide the master's death from the
        # siblings: no EPIPE, and a pipe that nobody empties.
        for line in _lines - {self}:
            line._handler.close_ends()
        _lines.intersection_update({self})
        self._handler.reader.close()
        renew_stdio()
        self._take_over_root_logger()
        self._handler.start_sending()
        # Two writers would garble the pipe, and the master would wait for the second to end.
        os.register_at_fork(after_in_child=self._handler.detach)

    def discard(self) -> None:
        """There is no child: the fork failed."""
        self._handler.close_ends()
        _lines.discard(self)

    def close_in_child(self, timeout: float = 2.0) -> None:
        """Wait until all is written, at most `timeout` seconds. Log calls from then on go to stderr."""
        self._handler.stop_sending(timeout)

    def close_in_master(self, timeout: float = 2.0) -> None:
        """Wait until all that the child wrote is in the sinks, at most `timeout` seconds."""
        self._is_finished = True
        self._handler.join(timeout)
        # A reader may remain: held up by a sink, or a process that the child left behind has the pipe open.
        # Its descriptor is closed by a later call: the main thread closes all, never during a fork.
        for line in [line for line in _lines if line._is_finished and not line._handler.running]:
            line.discard()

    def _take_over_root_logger(self) -> None:
        root = logging.getLogger()
        sinks = root.handlers[:]
        _inherited_sinks.extend(sinks)
        for sink in sinks:
            root.removeHandler(sink)
        self._handler.setLevel(min((sink.level for sink in sinks), default=logging.NOTSET))
        self._handler.setFormatter(next((sink.formatter for sink in sinks if sink.formatter), None))
        root.addHandler(self._handler)


@contextmanager
def held_across_fork() -> Iterator[None]:
    """Hold the locks of all log handlers during a fork. Parent and child both leave the block.

    `logging` gives the handlers of a child fresh locks by itself. But a lock that another thread held says
    that it was in the middle of a write: the child would get a half-written buffer, a stream locked inside.
    """
    parent = os.getpid()
    handlers = _all_handlers()
    held = _hold(handlers)
    try:
        yield
    finally:
        if os.getpid() == parent:
            for handler in reversed(held):
                handler.release()
        else:
            for handler in handlers:
                handler.createLock()


def _all_handlers() -> list[logging.Handler]:
    root = logging.getLogger()
    loggers = [logger for logger in list(root.manager.loggerDict.values()) if isinstance(logger, logging.Logger)]
    return list(dict.fromkeys(handler for logger in [root, *loggers] for handler in logger.handlers))


def _hold(handlers: list[logging.Handler]) -> list[logging.Handler]:
    """All of them, or those that can be had before the deadline.

    Gives all back and begins anew when it has to wait: handlers that call handlers take the locks in another
    order, and would wait for us.
    """
    deadline = time.monotonic() + _HOLD_TIMEOUT
    while True:
        is_last = time.monotonic() >= deadline
        held = []
        for handler in handlers:
            if handler.lock is None or handler.lock.acquire(timeout=0.05):
                held.append(handler)
            elif not is_last:
                break
        else:
            return held
        for handler in reversed(held):
            handler.release()
