"""Signals as bytes on a socket, so that the master's loop sees them between two other things."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

MASTER_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
    signal.SIGCONT,
)


_FOR_LATER = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)

_early: list[int] = []


class StoppedEarly(BaseException):
    """SIGTERM came while the application was imported: nothing was begun, so nothing has to be finished."""


def stop_early() -> None:
    """From now on SIGTERM ends what the main thread does; what else we have a meaning for waits for the loop.

    Also as the process with pid 1 of a container, where the kernel would ignore a SIGTERM without a handler. Anywhere
    else a SIGHUP would end us, and a SIGTTIN stop us.
    """
    signal.signal(signal.SIGTERM, _stop_early)
    for number in _FOR_LATER:
        signal.signal(number, _keep_for_later)


def _stop_early(number: int, frame: FrameType | None) -> None:
    raise StoppedEarly


def _keep_for_later(number: int, frame: FrameType | None) -> None:
    _early.append(number)


class SignalSocket:
    """Takes over MASTER_SIGNALS until the process ends. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> SignalSocket:
        early = bytes(_early)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # A Python function for each, though it does nothing: with SIG_IGN nothing would be written. It also
        # ends a SIG_IGN for SIGCHLD that we may have inherited: with it no child leaves an exit status.
        for number in MASTER_SIGNALS:
            signal.signal(number, _noted)
        if early:
            self._writer.send(early)
        # Whoever started us may have had them blocked.
        self._mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)
        for number in MASTER_SIGNALS:
            # Not what was there before: who says it once more while we leave would end us without our exit code.
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup_before)
        self.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> list[int]:
        """The signals since the last call, in order. One that came twice in a row may be there once."""
        numbers: list[int] = []
        while True:
            try:
                data = self._reader.recv(4096)
            except BlockingIOError:
                return numbers
            numbers.extend(data)

    def close(self) -> None:
        """Closes the socket and leaves the signals as they are: for a child, which sets its own."""
        self._reader.close()
        self._writer.close()


@contextmanager
def blocked_signals() -> Iterator[set[signal.Signals | int]]:
    """No signal reaches this thread; gives the mask from before. Pending ones arrive afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forget_master_signals() -> None:
    """In a child, with signals still blocked: what the master has installed is gone."""
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _noted(number: int, frame: FrameType | None) -> None:
    """The C-level handler has already written the number to the socket."""
