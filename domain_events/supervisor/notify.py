"""systemd's notify protocol (sd_notify(3)): ready, status, reloading, stopping, watchdog. Silent without systemd."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Mapping

from domain_events.showing import one_line

logger = logging.getLogger(__name__)

_LONGEST = 1_000  # characters of a status
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})


class Notifier:
    """Tells the service manager; never waits for it, for a loop that waits is one that hangs."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        # Now: later there may be no descriptor left, and a READY that is not heard ends the service.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._status = ""
        self._unsent: list[str] = []
        self._is_heard = True
        self.watchdog = _watchdog(environ, pid) if self._address else None
        """Seconds between two signs of life, None when nobody waits for them."""

    def ready(self) -> None:
        """Also at the end of a reload."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`, told when it is news."""
        # A line of its own would be another word: as MAINPID=, from what a broker has answered.
        line = one_line(text, _LONGEST)
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")

    def reloading(self, monotonic: int) -> None:
        """`monotonic`: microseconds of CLOCK_MONOTONIC, so that an old READY is not taken for the end of this."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic}")

    def extend(self, seconds: float) -> None:
        """What goes on (a stop, a reload) may take so much longer, from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def flush(self) -> bool:
        """Whether all has been said; otherwise the manager's queue is full: try again in a moment."""
        while self._unsent and self._socket is not None:
            try:
                self._socket.sendto(self._unsent[0].encode(errors="replace"), self._address)
            except OSError as error:
                if error.errno in _FULL:
                    return False
                self._say_once(error)
            else:
                self._is_heard = True
            del self._unsent[0]
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, text: str) -> None:
        if self._socket is None:
            return
        # Of what waits, only the last word of a kind counts; READY and RELOADING stay in the order they were said.
        self._unsent = [word for word in self._unsent if _kind(word) != _kind(text)]
        self._unsent.append(text)
        self.flush()

    def _say_once(self, error: OSError) -> None:
        if self._is_heard:
            self._is_heard = False
            logger.warning("the service manager was not told %s: %s", _kind(self._unsent[0]), error)


def forget_service_manager() -> None:
    """In a child: what its handlers start must not speak for the service."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)


def _kind(word: str) -> str:
    return word.partition("=")[0]


def _address(text: str) -> str:
    # "@" stands for the zero byte of an abstract name. Other kinds (vsock) are for virtual machines.
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of the time systemd waits, as sd_watchdog_enabled(3) advises."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() and int(text) else None
