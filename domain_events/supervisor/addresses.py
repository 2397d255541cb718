"""HOST:PORT to listen at, and what becomes of it. Nothing that is written without a host is seen from outside."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"

_FORM = re.compile(r"(?:(?P<host>\[[^\[\]\s]+\]|[^\[\]:/\s]*):)?(?P<port>[0-9]{1,5})")
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Address:
    """As it was asked for. Port 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return _written(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An address of this machine, found out once: a name may take its time."""

    family: int
    host: str  # a number
    port: int
    name: str  # as it was asked for

    def __str__(self) -> str:
        return _written(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    def listen(self) -> socket.socket:
        """Raises OSError."""
        listener = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # Connections of a master that has just ended do not keep the next one from it. A port that somebody
            # listens at stays his.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((self.host, self.port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener


def address(text: str) -> Address:
    """HOST:PORT, [IPV6]:PORT, :PORT or PORT. Raises ValueError."""
    match = _FORM.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} must be HOST:PORT, as 127.0.0.1:9100, [::1]:9100 or just 9100")
    return Address((match["host"] or LOOPBACK).strip("[]"), int(match["port"]))


def find(wanted: Address) -> Place:
    """May ask a name server. Raises OSError."""
    found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # "localhost" has several, and is expected at 127.0.0.1.
    family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
    return Place(family=family, host=str(place[0]), port=int(place[1]), name=wanted.host)


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
