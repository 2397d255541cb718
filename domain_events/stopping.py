"""The wish to stop, as something that a signal can set and an I/O loop can wait for."""

from __future__ import annotations

import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeAlias

SignalHandler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None
"""What signal.getsignal() returns."""


class Stop:
    """Set once, by a signal, another thread or a handler; seen at once by the I/O thread.

    `signal.set_wakeup_fd(stop.wakeup_fd)` makes the C level signal handler write the signal's number to the
    same socket that the I/O thread watches. So a drain begins in the instant of the signal, even while the
    main thread is deep in C code and cannot run a Python signal handler.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # A plain flag: an Event has a lock, and a signal handler that interrupts its set() would hang.
        self._requested = False
        self.handlers_before: Mapping[int, SignalHandler] = {}
        """What a process gets back that is forked while signals ask for this stop. Empty as long as none does."""
        _stops.add(self)

    @property
    def requested(self) -> bool:
        return self._requested

    @property
    def wakeup_fd(self) -> int:
        """Where a byte for each signal is written; non-blocking."""
        return self._writer.fileno()

    def fileno(self) -> int:
        """Readable when something was written; to be watched by the I/O loop."""
        return self._reader.fileno()

    def request(self) -> None:
        """Ask for a clean stop. Thread-safe, may be called in a signal handler, any number of times."""
        self._requested = True
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            pass  # full of bytes that nobody has read yet: the reader will wake up all the same
        except OSError:
            if self._writer.fileno() != -1:
                raise
            # Closed: whom it concerned has stopped already.

    def read_signals(self) -> set[int]:
        """The signals that arrived since the last call. SIGTERM and SIGINT count as a request to stop."""
        signals: set[int] = set()
        while True:
            try:
                read = self._reader.recv(4096)
            except BlockingIOError:
                break
            if not read:
                break
            signals.update(read)
        signals.discard(0)
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._requested = True
        return signals

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def forget(self) -> None:
        """In a forked child: what stops it is none of its parent's business.

        It shares the socket. A SIGTERM for it (as multiprocessing sends them) would stop the parent, and not end it.
        """
        wakeup_fd = signal.set_wakeup_fd(-1)
        # From Python 3.12 on asyncio takes every descriptor away after a fork; before us, when it was imported before.
        if wakeup_fd not in (-1, self._writer.fileno()):
            signal.set_wakeup_fd(wakeup_fd)  # no signal leads here
        else:
            for number, handler in self.handlers_before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.close()


_stops: weakref.WeakSet[Stop] = weakref.WeakSet()
_before_fork = threading.local()


def _hold_signals() -> None:
    # One that reached the child before it has forgotten its parent's stop would stop the parent.
    asking = {number for stop in list(_stops) for number in stop.handlers_before}
    _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, asking) if asking else None


def _let_signals_go() -> None:
    if _before_fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)


def _forget_all() -> None:
    for stop in list(_stops):
        stop.forget()
    _let_signals_go()


os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_forget_all)
