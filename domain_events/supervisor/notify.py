"""systemd's notify protocol (sd_notify(3)): ready, status, stopping, watchdog. Silent without systemd."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)

_SEND_TIMEOUT = 1.0  # seconds; systemd reads at once, and nothing else may hold up the loop


class Notifier:
    """Tells the service manager; each word only when it is news."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._status = ""
        self.watchdog = _watchdog(environ, pid) if self._address else None
        """Seconds between two signs of life, None when nobody waits for them."""

    def ready(self) -> None:
        """Also at the end of a reload."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def reloading(self, monotonic: int) -> None:
        """`monotonic`: microseconds of CLOCK_MONOTONIC, so that an old READY is not taken for the end of this."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic}")

    def extend(self, seconds: float) -> None:
        """The stop may take so much longer, from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.settimeout(_SEND_TIMEOUT)
            self._socket.sendto(text.encode(errors="replace"), self._address)
        except OSError as error:
            logger.warning("the service manager was not told %s: %s", text.partition("=")[0], error)


def forget_service_manager() -> None:
    """In a child: what its handlers start must not speak for the service."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)


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
