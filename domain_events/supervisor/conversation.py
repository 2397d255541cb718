"""One connection to the control socket: a request, its reply, the next request. It waits for nobody."""

from __future__ import annotations

import contextlib
import logging
import select
import selectors
import socket
from collections.abc import Callable
from typing import TypeAlias

from domain_events.supervisor.protocol import (
    LONGEST_REQUEST,
    PATIENCE,
    Failed,
    Inspect,
    Metrics,
    OperatorExit,
    ProtocolError,
    Reply,
    Request,
    Status,
    read_request,
    write_reply,
)

logger = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Request, Callable[[Reply], None]], Reply | None]
"""Does what a request asks for. None: the second argument will be called with the reply later, in the same thread."""


class Conversation:
    """One connection. It reads a request, answers, writes the reply, and only then reads on: what is kept for it is
    one reply and the beginning of the next request."""

    def __init__(
        self,
        connection: socket.socket,
        who: str,
        *,
        selector: selectors.BaseSelector,
        answer: Answer,
        clock: Callable[[], float],
        forget: Callable[[Conversation], None],
        patience: float | None = PATIENCE,
    ) -> None:
        """`who` is at the other end, for the log. `forget` is called at the end. `patience`: seconds that it has for
        each request; None: as long as it likes."""
        self.connection = connection
        self.deadline: float | None = None
        self._who = who
        self._selector = selector
        self._answer_to = answer
        self._clock = clock
        self._forget = forget
        self._patience = patience
        self._events = 0  # that the selector waits for
        self._turn: Callable[[], None] = self._read  # what to do when it is ready
        self._received = bytearray()
        self._has_ended = False  # it sends no more
        self._to_send = memoryview(b"")
        self._ticket: object | None = None  # of the request that waits for its reply

    def begin(self) -> None:
        """Raises OSError."""
        self.deadline = None if self._patience is None else self._clock() + self._patience
        self._watch(selectors.EVENT_READ)

    def expire(self, now: float) -> None:
        """Drops it if its deadline has passed."""
        if self.deadline is None or now < self.deadline:
            return
        self._ready()  # the master itself may have been stopped: what has come in time counts
        if self.deadline is None or now < self.deadline:
            return
        if self._to_send:
            logger.info("control: %s does not read its reply and is dropped", self._who)
            self._drop()
        else:
            self.leave_with(Failed(f"no complete request within {self._patience:g} s", OperatorExit.USAGE))

    def leave_with(self, last: Failed) -> None:
        """Drops it, with a last word if that can be said at once."""
        with contextlib.suppress(OSError):
            if self._to_send:
                self.connection.send(self._to_send)
            elif self._ticket is not None or not self._has_ended:
                self.connection.send(write_reply(last))
        self._drop()

    def drop_if_gone(self) -> None:
        """Of one that waits for its reply, and has said before that it would send no more, we do not hear."""
        if self._ticket is not None and _has_hung_up(self.connection):
            self._drop()

    def _ready(self) -> None:
        """Called by the loop, perhaps once more after the end: both may have stood in the same turn."""
        if self.connection.fileno() < 0:
            return
        try:
            self._turn()
        except OSError:
            self._drop()  # it has gone

    def _read(self) -> None:
        """A request, or a part of it."""
        self._receive()
        self._next()

    def _read_ahead(self) -> None:
        """While it waits for its reply: most of all, whether it still does."""
        self._receive()
        if self._has_ended and _has_hung_up(self.connection):
            self._drop()
        elif self._has_ended or len(self._received) > LONGEST_REQUEST:
            self._watch(0)  # or it would be readable for ever

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self.connection.recv(LONGEST_REQUEST + 1 - len(self._received))
            self._received += data
            self._has_ended = not data

    def _next(self) -> None:
        """At most one request in one turn of the loop: the others have their turns as well."""
        end = self._received.find(b"\n")
        if end < 0 and len(self._received) > LONGEST_REQUEST:
            self._received.clear()
            self._has_ended = True  # what follows is the rest of it
            self._reply(Failed(f"the request is longer than {LONGEST_REQUEST} bytes", OperatorExit.USAGE))
        elif end >= 0 or (self._has_ended and self._received):
            line = bytes(self._received[:end] if end >= 0 else self._received)
            del self._received[: len(line) + 1]
            self._answer(line)
        elif self._has_ended:
            self._drop()
        elif self._turn != self._read:
            self._turn = self._read
            self.begin()

    def _answer(self, line: bytes) -> None:
        try:
            request = read_request(line)
        except ProtocolError as error:
            self._reply(Failed(str(error), OperatorExit.USAGE))
            return
        level = logging.DEBUG if isinstance(request, (Status, Inspect, Metrics)) else logging.INFO
        logger.log(level, "control: %s asks: %s", self._who, request)
        ticket = self._ticket = object()
        self.deadline = None

        def later(reply: Reply) -> None:
            if self._ticket is ticket:  # it still waits, and this is the first reply
                self._reply(reply)

        try:
            reply = self._answer_to(request, later)
        except Exception:
            # Of the master, not of this room: a fault in it costs this client its reply, not the receivers their
            # supervisor.
            logger.exception("the master could not answer %s", request)
            reply = Failed("the master could not answer; its log says why", OperatorExit.FAILED)
        if reply is not None:
            later(reply)
        elif self._ticket is ticket:
            self._turn = self._read_ahead
            self._watch(0 if self._has_ended else selectors.EVENT_READ)

    def _reply(self, reply: Reply) -> None:
        """Also called by the master, at any time."""
        self._ticket = None
        try:
            line = write_reply(reply)
        except (TypeError, ValueError):
            logger.exception("the master has answered with what JSON cannot hold")
            line = write_reply(Failed("the master could not answer; its log says why", OperatorExit.FAILED))
        self._to_send = memoryview(line)
        self.deadline = self._clock() + PATIENCE
        self._turn = self._send
        try:
            self._send_some()
            # Also when all of it is sent: the next request has to wait for the next turn.
            self._watch(selectors.EVENT_WRITE)
        except OSError:
            self._drop()

    def _send(self) -> None:
        if self._to_send:
            self._send_some()
        else:
            self._next()

    def _send_some(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._to_send = self._to_send[self.connection.send(self._to_send) :]

    def _watch(self, events: int) -> None:
        """Raises OSError."""
        before, self._events = self._events, 0  # should it fail, the selector has forgotten us
        if events == before:
            pass
        elif not events:
            self._selector.unregister(self.connection)
        elif not before:
            self._selector.register(self.connection, events, self._ready)
        else:
            self._selector.modify(self.connection, events, self._ready)
        self._events = events

    def _drop(self) -> None:
        self._ticket = None
        self.deadline = None
        if self._events:
            with contextlib.suppress(KeyError):  # the selector is closed
                self._selector.unregister(self.connection)
        self._events = 0
        self.connection.close()
        self._forget(self)


def _has_hung_up(connection: socket.socket) -> bool:
    """Gone for good. An end of the file may also come from one that only has nothing more to say."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
