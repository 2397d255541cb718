"""The log line from a child to its master: one private pipe for each, and sinks only in the master.

Why not `install_mp_handler()` of multiprocessing-logging: its one shared queue has a lock, and a child that
is SIGKILLed while it holds it silences every process for ever. Its handler is the base class of ours, see
forwarder.py.

A log call in a child costs the making of a JSON text and a write to the pipe, and never waits; what the pipe does
not take at once is left to the thread "log-sender". A thread "log-reader" of the master reads it and calls the
sinks: the handlers that the loggers of the master have. When the master dies, what is in the pipe (at most 64 KiB
on Linux) is lost, and what comes after goes to stderr.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from domain_events.supervisor.forwarder import take_over
from domain_events.supervisor.log_reader import LogReader
from domain_events.supervisor.log_sender import LogSender
from domain_events.supervisor.sinks import all_loggers, find_sinks, note_handlers, sinks_of
from domain_events.supervisor.stderr import renew_stdio

_HOLD_TIMEOUT = 1.0  # seconds, for the locks of the sinks: one that is stuck must not keep the master from forking
_LOCK_TIMEOUT = 0.05  # seconds, for one lock
_COUNT_TIMEOUT = 0.5  # seconds, for all readers that count what they will not write

_hold_timeout = _HOLD_TIMEOUT

_lines: set[LogLine] = set()  # those with open ends in this process; touched by the main thread only


class LogLine:
    """One for each child, made in the master just before its fork. All calls come from the main thread.

    Master: `in_master`, and `close_in_master` after the child was reaped; `discard` when the fork failed.
    Child: `in_child`, and `close_in_child` before `os._exit`. What it forks itself logs to stderr directly.

    When another process than the master forks the child, the master sends it `writer_fd` before `in_master`.
    It makes its half `from_writer`; after the fork it calls `discard`, and the child does as any child.
    """

    def __init__(self, name: str, bound: int = 5000, on_dropped: Callable[[int], object] = lambda n: None) -> None:
        """`name` of the child, for the logs; `bound`: how many records may wait in it, others are dropped.

        `on_dropped` is told in a thread of the master how many that were, each time that it is logged there.
        """
        reader, writer = os.pipe()
        self._sinks = find_sinks()
        self._lay(LogSender(name, writer, bound), LogReader(name, reader, self._sinks, on_dropped))
        self._in_master: Mapping[str, int] = {name: len(sinks) for name, sinks in self._sinks.items()}

    @classmethod
    def from_writer(cls, name: str, fd: int, sinks: Collection[str] = (), bound: int = 5000) -> Self:
        """The half of a process that is not the master: `fd` is the `writer_fd` of the master's, and now ours.

        `sinks`: what `sink_names()` gave in the master.
        """
        line = cls.__new__(cls)
        line._sinks = {}
        line._in_master = Counter(sinks)
        line._lay(LogSender(name, fd, bound), None)
        return line

    def _lay(self, sender: LogSender, reader: LogReader | None) -> None:
        self._sender = sender
        self._reader = reader
        self._is_finished = False
        _lines.add(self)

    @property
    def writer_fd(self) -> int:
        """The writing end, open in the master until `in_master`."""
        return self._sender.fd

    def in_master(self) -> None:
        """Begin to read."""
        self._sender.close()  # else the reader would never see the end
        if self._reader is not None:
            self._reader.start()

    def in_child(self) -> None:
        """Give the loggers stand-ins for their sinks, which forward to the master, and the process fresh stdio."""
        # The siblings' reading ends came with the fork. Left open they would hide the master's death from the
        # siblings: no EPIPE, and a pipe that nobody empties.
        for line in _lines - {self}:
            line._close_ends()
        _lines.intersection_update({self})
        if self._reader is None:
            self._sinks = find_sinks()
        else:
            self._reader.close()
        take_over(self._sinks, self._in_master, self._sender)
        renew_stdio()
        self._sender.start()
        # Two writers would garble the pipe, and the master would wait for the second to end.
        os.register_at_fork(after_in_child=self._sender.detach)

    def discard(self) -> None:
        """There is no child, for the fork failed; or it has the line, and this process is not the master."""
        self._close_ends()
        _lines.discard(self)

    def close_in_child(self, timeout: float = 2.0) -> None:
        """Wait until all is written, at most `timeout` seconds. Log calls from then on go to stderr."""
        self._sender.stop(timeout)

    def close_in_master(self, timeout: float = 2.0) -> None:
        """Wait until all that the child wrote is in the sinks, at most `timeout` seconds."""
        self._is_finished = True
        if self._reader is not None:
            self._reader.join(timeout)
        close_late()

    @property
    def _is_read(self) -> bool:
        return self._reader is not None and self._reader.running

    def _close_ends(self) -> None:
        self._sender.close()
        if self._reader is not None:
            self._reader.close()


def close_late() -> bool:
    """Give back the descriptors of the lines that `close_in_master` did not see the end of. Whether some still remain.

    They are held up by a sink, or a process that the child left behind has the pipe open. The main thread closes all,
    never during a fork.
    """
    remain = False
    for line in [line for line in _lines if line._is_finished]:
        if line._is_read:
            remain = True
        else:
            line.discard()
    return remain


def leave_all() -> None:
    """In a process that the master has forked and that has no line: those of the others are not its own."""
    for line in list(_lines):
        line.discard()


def finish_in_master(timeout: float) -> None:
    """At the end of the master: wait until all that any child wrote is in the sinks, at most `timeout` seconds.

    `close_in_master` may have left readers with more to write. What they have not written by then would be lost with
    us, up to a full pipe for each, so they say how much it is. A sink that is stuck keeps its readers from that.
    """
    readers = [line._reader for line in _lines if line._reader is not None and line._reader.running]
    _join(readers, timeout)
    for reader in readers:
        reader.give_up()
    _join(readers, _COUNT_TIMEOUT)


def _join(readers: Collection[LogReader], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for reader in readers:
        reader.join(max(0.0, deadline - time.monotonic()))


def sink_names() -> tuple[str, ...]:
    """For `LogLine.from_writer` in another process: the logger of each sink that this one has, in order."""
    return tuple(name for name, sinks in find_sinks().items() for _ in sinks)


@contextmanager
def held_across_fork() -> Iterator[None]:
    """Hold the locks of all log handlers during a fork. Parent and child both leave the block.

    `logging` gives the handlers of a child fresh locks by itself. But a lock that another thread held says
    that it was in the middle of a write: the child would get a half-written buffer, a stream locked inside.
    """
    parent = os.getpid()
    handlers = _all_handlers()
    held = _hold(handlers)
    note_handlers()
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
    return list(dict.fromkeys(handler for logger in all_loggers() for handler in [*logger.handlers, *sinks_of(logger)]))


def _hold(handlers: list[logging.Handler]) -> list[logging.Handler]:
    """All of them, or those that can be had before the deadline.

    Gives all back and begins anew when it has to wait: handlers that call handlers take the locks in another
    order, and would wait for us.
    """
    global _hold_timeout
    deadline = time.monotonic() + _hold_timeout
    while True:
        is_last = time.monotonic() >= deadline
        held = []
        for handler in handlers:
            if handler.lock is None or handler.lock.acquire(timeout=_LOCK_TIMEOUT):
                held.append(handler)
            elif not is_last:
                break
        else:
            # Not a whole second for each fork, as long as nobody reads the log.
            _hold_timeout = _HOLD_TIMEOUT if len(held) == len(handlers) else 0.0
            return held
        for handler in reversed(held):
            handler.release()
