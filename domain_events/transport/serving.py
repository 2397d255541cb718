"""The thread that handles events reads the connection itself while it has nothing else to do.

Each event that goes from one thread to another costs a switch of threads, twice with the ack: under load more than all
the rest that we do for it. So the thread whose lane is empty takes the socket out of the I/O thread's loop and waits
for it. It keeps it while it handles what it has read; from a handler that takes long the I/O thread takes it back,
so that heartbeats go on. Whoever touches the connection holds the I/O thread's `turn`.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from domain_events.transport.direct import DirectConnection
from domain_events.transport.io_thread import IOThread


class Serving:
    """Of one consumer. All of it but `wait` belongs to whoever holds the turn."""

    def __init__(self, io: IOThread, *, ready: Callable[[], bool]) -> None:
        """`ready`: whether something waits to be handled."""
        self._io = io
        self._ready = ready
        self._lent: DirectConnection | None = None
        self._is_waiting = False
        self._is_used = False
        """Since the last look."""
        self._bell: int | None = None
        self._poll = select.poll()

    def wait(self, lend: Callable[[], DirectConnection | None]) -> bool:
        """Until something waits to be handled: True. False: that is for the I/O thread to bring.

        `lend` is asked for the connection, if it can be had.
        """
        turn = self._io.turn
        with turn:
            if self._ready():
                return True
            if self._lent is None and not self._take(lend()):
                return False
            self._is_waiting = True
        while True:
            events = self._poll.poll()
            with turn:
                rang = (self._bell, select.POLLIN) in events
                if rang or self._lent is None:  # it may have rung just now
                    self._hush()
                if self._lent is None:
                    return False
                if rang and len(events) == 1:
                    continue  # for somebody before us, whom a signal handler's exception has taken away
                self._is_used = True
                is_alive = self._lent.read()
                if not is_alive:
                    self._lent = None
                if not is_alive or self._ready():
                    self._is_waiting = False
                    return is_alive

    def look(self) -> None:
        """To be called now and then: the I/O thread takes back what lies about."""
        if not self._is_used and not self._is_waiting:
            self.withdraw()
        self._is_used = False

    def withdraw(self) -> None:
        """The I/O thread reads from now on, until it is asked again."""
        connection, self._lent = self._lent, None
        if connection is not None:
            connection.take_back()
            if self._is_waiting and self._bell is not None:
                self._is_waiting = False
                os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        if self._bell is not None:
            os.close(self._bell)
            self._bell = None

    def _hush(self) -> None:
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):  # it is silent
                os.eventfd_read(self._bell)

    def _take(self, connection: DirectConnection | None) -> bool:
        descriptor = connection.lend() if connection is not None else None
        if descriptor is None:
            return False
        if self._bell is None:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lent = connection
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(descriptor, select.POLLIN)
        return True
