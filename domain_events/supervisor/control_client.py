"""Asks a master something over its control socket, and waits for the reply."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
import time

from domain_events.errors import DomainEventError
from domain_events.supervisor.protocol import (
    LONGEST_PATH,
    LONGEST_REPLY,
    ProtocolError,
    Reply,
    Request,
    read_reply,
    write_request,
)

_CHUNK = 64 * 1024
_LONGEST = 1e6  # seconds; much more does not fit into the system's timeval


class MasterUnreachable(DomainEventError):
    """No master answers at this path: names it, the reason and the remedy."""


class NoAnswer(MasterUnreachable):
    """It may have taken the request, but has not answered in time."""


def ask(path: str, request: Request, timeout: float | None) -> Reply:
    """Raises MasterUnreachable, or NoAnswer. `timeout`: seconds for all of it; None: as long as the master lives."""
    if "\0" in path or len(os.fsencode(path)) > LONGEST_PATH:
        raise MasterUnreachable(f"{path!r} cannot be a control socket: a path has at most {LONGEST_PATH} bytes")
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, path, deadline)
            # Who is turned away gets a reply that says why, perhaps before the request has left.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.settimeout(_left(deadline))
                connection.sendall(write_request(request))
            return read_reply(_line(connection, deadline))
    except TimeoutError:
        raise NoAnswer(f"the master at {path} has not answered within {timeout:g} s") from None
    except (EOFError, ConnectionResetError):
        raise MasterUnreachable(f"the master at {path} hung up without an answer; see its log") from None
    except ProtocolError as error:
        raise MasterUnreachable(f"what answers at {path} is no master of this version: {error}") from None
    except OSError as error:
        raise MasterUnreachable(f"no master answers at {path}: {_reason(error, path)}") from error


def _connect(connection: socket.socket, path: str, deadline: float | None) -> None:
    while True:
        connection.settimeout(_left(deadline))
        try:
            connection.connect(path)
            return
        except BlockingIOError:  # its queue is full; unix(7) has no way to wait for a place
            time.sleep(0.05)


def _line(connection: socket.socket, deadline: float | None) -> bytes:
    received = bytearray()
    while True:
        connection.settimeout(_left(deadline))
        data = connection.recv(_CHUNK)
        if not data:
            raise EOFError
        received += data
        if b"\n" in data:
            return bytes(received.partition(b"\n")[0])
        if len(received) > LONGEST_REPLY:
            raise ProtocolError("the reply does not end")


def _left(deadline: float | None) -> float | None:
    """Seconds until then. Raises TimeoutError."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:  # 0 would mean: do not wait at all
        raise TimeoutError
    return min(left, _LONGEST)


def _reason(error: OSError, path: str) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket. Does the supervisor run, and with this --control?"
        case ConnectionRefusedError() if _is_socket(path):
            return "nobody listens; the master that made it is gone"
        case ConnectionRefusedError():
            return "it is no socket"
        case PermissionError():
            return f"not allowed; ask as root, or as {_owner(path)}"
        case _:
            return error.strerror or str(error)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _owner(path: str) -> str:
    """For people: whom it belongs to."""
    try:
        uid = os.stat(path).st_uid
    except OSError:
        return "the supervisor's user"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
