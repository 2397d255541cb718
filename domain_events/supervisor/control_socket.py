"""The socket file of the control: made, told from one that is left over or in use, removed."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator

from domain_events.errors import DomainEventError
from domain_events.supervisor.protocol import LONGEST_PATH

logger = logging.getLogger(__name__)

_BACKLOG = 64
_LOCK_PATIENCE = 2.0  # seconds, at the start only


class ControlTaken(DomainEventError):
    """Another master answers at this path, or no socket can be made there. Names it."""


class ControlSocket:
    """Listens from its making until `close`. The file has mode 0600 from its first moment on."""

    def __init__(self, path: str) -> None:
        """Raises ControlTaken. What is left over from a master that is gone is replaced."""
        self.path = os.path.abspath(path)  # the application may change the directory
        _check(path, self.path)
        self._file: os.stat_result | None = None
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise ControlTaken(f"cannot make the control socket {self.path}: {error.strerror}") from error
        try:
            self._socket.setblocking(False)
            with _alone_in(os.path.dirname(self.path)):
                _clear(self.path)
                self._listen()
        except OSError as error:
            self.close()
            raise ControlTaken(f"cannot make the control socket {self.path}: {_reason(error, self.path)}") from error
        except ControlTaken:
            self.close()
            raise

    def _listen(self) -> None:
        # Linux makes the file with the mode of the socket, less the umask: there is no moment with another one. A
        # umask would be that of the whole process; chmod after bind would leave a moment, and could be led astray.
        os.fchmod(self._socket.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        self._socket.bind(self.path)
        self._file = os.lstat(self.path)
        self._socket.listen(_BACKLOG)

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """Raises OSError, BlockingIOError when nobody waits."""
        connection, _ = self._socket.accept()
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """The file goes as well, if it is still ours."""
        if self._file is not None:
            # The file first: as long as we listen, another master takes it for in use and does not replace it, so
            # it cannot become another's between our look and our removal. While we hold our socket its inode is not
            # given to another file.
            with contextlib.suppress(OSError):
                if os.path.samestat(self._file, os.lstat(self.path)):
                    os.unlink(self.path)
            self._file = None
        self._socket.close()

    def close_descriptors(self) -> None:
        """For a child: the file belongs to its master."""
        self._file = None
        self._socket.close()


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end: of its connect, or of its listen (SO_PEERCRED of unix(7))."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


def _check(given: str, path: str) -> None:
    size = len(os.fsencode(path))
    if not given or "\0" in given:
        raise ControlTaken(f"{given!r} cannot be the path of a control socket")
    if size > LONGEST_PATH:
        raise ControlTaken(f"the control socket's path {path} has {size} bytes; the longest possible is {LONGEST_PATH}")


def _reason(error: OSError, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no directory {os.path.dirname(path)}"
    return error.strerror or str(error)


def may_ask(uid: int) -> bool:
    """The mode of the file says the same; but somebody may have changed it."""
    return uid in (0, os.geteuid())


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Two masters that start together take turns: each would take the other's socket, made but not yet listening,
    for one that is left over. Without a lock, as on some network file systems, it goes on after a moment."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            until = time.monotonic() + _LOCK_PATIENCE
            while not _has_locked(fd) and time.monotonic() < until:
                time.sleep(0.02)
        yield


def _has_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(path: str) -> None:
    """Removes what is left over. Raises ControlTaken when it is in use, or no socket; OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ControlTaken(f"{path} is no socket and stays as it is; choose another --control")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            pid, _ = peer_of(probe)
        except ConnectionRefusedError:
            os.unlink(path)
            logger.info("the control socket %s was left over and is replaced", path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pid = 0  # so many wait that it takes no more; somebody is there
    who = f"the master with pid {pid}" if pid else "another master"
    raise ControlTaken(f"{who} answers at {path}; stop that one first, or choose another --control")
