"""A loader as its master sees it: new code in a process of its own, see `loading`."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from domain_events.supervisor.exits import ending_of_code
from domain_events.supervisor.launch import Launch
from domain_events.supervisor.loading import VARIABLE
from domain_events.supervisor.logs import sink_names
from domain_events.supervisor.nursery import Ends
from domain_events.supervisor.posts import HttpOrders, Orders, Post
from domain_events.version import __version__

_ANSWER_TIMEOUT = 5.0  # seconds for a fork: the loop of the master waits
_END_TIMEOUT = 0.5  # seconds from its last word to its end
_LONGEST_HELLO = 16 * 1024 * 1024  # bytes


class LoadFailed(Exception):
    """The new code cannot be run; the message says why."""


class Loader:
    """A Source of children, once it has said hello."""

    def __init__(self, launch: Launch) -> None:
        """Raises OSError when it cannot be started."""
        self.posts: Sequence[Post] = ()
        self.directories: Sequence[str] = ()
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                told = {VARIABLE: f"{theirs.fileno()}:{os.getpid()}"}
                self._process = launch.again(told, [theirs.fileno()])
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._data = b""
        self.is_broken = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._socket.fileno()

    def hello(self) -> bool:
        """To be called when it has something to say. True: it is ready. Raises LoadFailed."""
        try:
            while data := self._socket.recv(65536):
                self._data += data
                if len(self._data) > _LONGEST_HELLO:
                    raise LoadFailed("the loader does not stop talking")
            has_ended = True
        except BlockingIOError:
            has_ended = self.is_broken
        except OSError as error:
            raise LoadFailed(f"the loader has hung up: {error.strerror}") from error
        line, newline, _ = self._data.partition(b"\n")
        if not newline:
            if has_ended:
                raise LoadFailed(f"the loader has ended before it was ready ({self._ending()})")
            return False
        self._data = b""
        try:
            self._understand(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            # Code that writes to descriptors which are not its own.
            raise LoadFailed(f"what the loader says makes no sense ({error!r})") from error
        return True

    def _understand(self, said: dict[str, Any]) -> None:
        if "failed" in said:
            raise LoadFailed(str(said["failed"]))
        if said["version"] != __version__:
            raise LoadFailed(
                f"this master runs domain-events {__version__}, the new code comes with {said['version']}: "
                "another version of the library needs a restart"
            )
        self.posts = tuple(Post(**values) for values in said["posts"])
        self.directories = tuple(said["directories"])

    def fork(self, orders: Orders | HttpOrders, ends: Ends, abandon: Callable[[], None]) -> int:
        """Waits for the answer, at most a moment. Raises OSError."""
        kind = "http" if isinstance(orders, HttpOrders) else "receiver"
        order = json.dumps({"kind": kind, "orders": asdict(orders), "sinks": sink_names()}).encode() + b"\n"
        fds = [ends.status, ends.stacks, ends.lifeline, ends.log.writer_fd, ends.arena.fd, *ends.given]
        try:
            socket.send_fds(self._socket, [order], fds)
            answer = self._answer()
        except (OSError, ValueError) as error:
            # A late answer would be taken for the next one. A child that it still makes finds nobody listening.
            self.is_broken = True
            self._process.kill()
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"the loader of the new code does not answer: {reason}") from error
        if "pid" not in answer:
            raise OSError(f"in the loader: {answer.get('error')}")
        return int(answer["pid"])

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        data = b""
        while not data.endswith(b"\n"):
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"nothing within {_ANSWER_TIMEOUT:g} s")
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("it has ended")
            data += received
        answer: dict[str, Any] = json.loads(data)
        return answer

    def has_ended(self) -> bool:
        """Reaps it; it can make no more children then."""
        if self._process.poll() is not None:
            self.is_broken = True
        return self._process.returncode is not None

    def close(self) -> None:
        """Let it go: it ends by itself when its channel does, and is killed when it still imports."""
        self._socket.close()
        if not self.posts:
            self._process.kill()
        elif self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)  # somebody may have stopped it

    def close_descriptors(self) -> None:
        """In a child of the master."""
        self._socket.close()

    def _ending(self) -> str:
        try:
            return str(ending_of_code(self._process.wait(_END_TIMEOUT)))
        except subprocess.TimeoutExpired:
            return "it still runs"
