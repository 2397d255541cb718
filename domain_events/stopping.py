"""The wish to stop, as something that a signal can set and an I/O loop can wait for."""

from __future__ import annotations

import signal
import socket


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
