"""One master at a time: a lock file that the kernel opens again whatever kills its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os

from domain_events.errors import DomainEventError


class LockTaken(DomainEventError):
    """Another master holds the lock, or the file cannot be used as one."""


class Lock:
    """Held from its making until `close`, or the end of the process. Not inherited by programs we start."""

    def __init__(self, path: str) -> None:
        """Raises LockTaken, which names the holder's pid."""
        self._fd = _locked(path)
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, the pid is for people
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Also for a child: the lock belongs to the open file, so a copy in a child would keep it held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(path: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise LockTaken(f"cannot use {path} as a lock: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the file between our two calls: then we have locked what nobody sees.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            who = f"the master with pid {holder}" if holder.isdigit() else "another master"
            raise LockTaken(f"{path} is locked by {who}; stop that one first, or choose another --lock") from None
        except OSError as error:
            os.close(fd)
            raise LockTaken(f"cannot use {path} as a lock: {error.strerror}") from error
        with contextlib.suppress(OSError):
            os.close(fd)
