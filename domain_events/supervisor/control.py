"""The control socket in the master's loop: takes requests, gives replies, and waits for nobody."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import time
from collections.abc import Callable

from domain_events.supervisor.control_socket import ControlSocket, ControlTaken, may_ask, peer_of
from domain_events.supervisor.conversation import Answer, Conversation
from domain_events.supervisor.protocol import MOST_CLIENTS, Failed, OperatorExit, write_reply

logger = logging.getLogger(__name__)

_ACCEPTS = 8  # in one turn of the loop
_ACCEPT_PAUSE = 1.0  # seconds without descriptors
_USUAL = frozenset({errno.EAGAIN, errno.ECONNABORTED, errno.EINTR})


class Control:
    """Registers itself and its clients with the selector; `data` of a key is to be called when it is ready."""

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        answer: Answer,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ControlTaken."""
        self._answer = answer
        self._clock = clock
        self._selector = selector
        self._clients: dict[Conversation, None] = {}  # oldest first
        self._accepts_at: float | None = None  # None: it does
        self._has_complained = False  # of this pause
        self._is_open = True
        self._socket = ControlSocket(path)
        try:
            selector.register(self._socket, selectors.EVENT_READ, self._accept)
        except OSError as error:
            self._socket.close()
            raise ControlTaken(f"cannot listen at the control socket {path}: {error.strerror}") from error

    @property
    def due(self) -> float | None:
        """When `tick` is to be called at the latest; None: not at all."""
        times = [client.deadline for client in self._clients if client.deadline is not None]
        if self._accepts_at is not None:
            times.append(self._accepts_at)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Drops the clients that take too long."""
        for client in list(self._clients):
            client.expire(now)
        if self._accepts_at is not None and now >= self._accepts_at:
            self._accepts_at = None
            try:
                self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
            except OSError:  # as the pause began: something is used up
                self._accepts_at = now + _ACCEPT_PAUSE

    def close(self) -> None:
        """Who still waits is told; the socket file goes, if it is still ours."""
        if not self._is_open:
            return
        for client in list(self._clients):
            client.leave_with(Failed("the master has stopped", OperatorExit.FAILED))
        with contextlib.suppress(KeyError):  # in a pause, or the selector is closed
            self._selector.unregister(self._socket)
        self._shut()
        self._socket.close()

    def close_descriptors(self) -> None:
        """For a child. Says nothing to the selector: the kernel's part of it is shared with the master."""
        for client in self._clients:
            client.connection.close()
        self._shut()
        self._socket.close_descriptors()

    def _shut(self) -> None:
        self._is_open = False
        self._clients.clear()
        self._accepts_at = None

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection = self._socket.accept()
            except OSError as error:
                if error.errno not in _USUAL:
                    self._pause(error)
                return
            self._has_complained = False
            self._welcome(connection)

    def _pause(self, error: OSError) -> None:
        """No descriptor is left: whoever waits stays readable, and the loop would spin."""
        if not self._has_complained:
            self._has_complained = True
            logger.warning("the control socket takes nobody for a while: %s", error.strerror)
        self._selector.unregister(self._socket)
        self._accepts_at = self._clock() + _ACCEPT_PAUSE

    def _welcome(self, connection: socket.socket) -> None:
        try:
            pid, uid = peer_of(connection)
            if not may_ask(uid):
                logger.warning("user %d, process %d, may not use the control socket", uid, pid)
                _refuse(connection, Failed("only root and the supervisor's own user may ask", OperatorExit.UNREACHABLE))
                return
            if len(self._clients) >= MOST_CLIENTS:
                self._sweep()
            if len(self._clients) >= MOST_CLIENTS:
                _refuse(connection, Failed("the master has too many clients; try again", OperatorExit.UNREACHABLE))
                return
            client = Conversation(
                connection,
                f"process {pid} of user {uid}",
                selector=self._selector,
                answer=self._answer,
                clock=self._clock,
                forget=lambda client: self._clients.pop(client, None),
            )
            client.begin()
            self._clients[client] = None
        except OSError as error:
            logger.warning("the control socket lost a client: %s", error.strerror)
            connection.close()

    def _sweep(self) -> None:
        """Makes room: some may have gone without our hearing of it."""
        for client in list(self._clients):
            client.drop_if_gone()


def _refuse(connection: socket.socket, reply: Failed) -> None:
    with contextlib.suppress(OSError):
        connection.send(write_reply(reply))
    connection.close()
