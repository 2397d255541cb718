"""Asks the master, over the sockets that this child was born with."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from domain_events.errors import DomainEventError
from domain_events.supervisor.protocol import (
    LONGEST_REPLY,
    Done,
    Failed,
    ProtocolError,
    Reply,
    Request,
    Status,
    read_reply,
    write_request,
)

PATIENCE = 5.0
"""Seconds that the master's loop has for an answer."""

_FRESH = 0.5  # seconds that an answer stands for the next one


class MasterSilent(DomainEventError):
    """Its loop does not answer."""


class MasterGone(DomainEventError):
    """It has hung up."""

    def __init__(self) -> None:
        super().__init__("the master has hung up")


class Master:
    """What is asked often is asked once for all who ask at the same time."""

    def __init__(self, asking: _Line, acting: _Line) -> None:
        self._asking = asking
        self._acting = acting
        self._known: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._lock = asyncio.Lock()

    @classmethod
    async def connect(cls, asking: socket.socket, acting: socket.socket, gone: Callable[[], object]) -> Self:
        """`gone` is called when the master has hung up."""
        return cls(await _Line.open(asking, gone), await _Line.open(acting, gone))

    @property
    def is_gone(self) -> bool:
        return self._asking.is_gone or self._acting.is_gone

    async def status(self) -> Mapping[str, Any]:
        """As `domain-events status --json`. Raises MasterSilent, MasterGone."""
        return await self.look(Status())

    async def look(self, request: Request) -> Mapping[str, Any]:
        """The data of a question that changes nothing, at most half a second old. Raises MasterSilent, MasterGone."""
        key = repr(request)
        async with self._lock:
            at, data = self._known.get(key, (0.0, {}))
            if time.monotonic() - at >= _FRESH:
                reply = await self._asking.ask(request, PATIENCE)
                if isinstance(reply, Failed):
                    raise MasterSilent(reply.message)
                data = reply.data
                self._known = {key: each for key, each in self._known.items() if time.monotonic() - each[0] < _FRESH}
                self._known[key] = (time.monotonic(), data)
            return data

    async def act(self, request: Request, patience: float) -> Reply | None:
        """None: it goes on, and takes longer than `patience` seconds. Raises MasterGone."""
        try:
            return await self._acting.ask(request, patience)
        except MasterSilent:
            return None


class _Line:
    """One socket: a request, its reply, the next request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: Callable[[], object]) -> None:
        self._reader = reader
        self._writer = writer
        self._gone = gone
        self._lock = asyncio.Lock()
        self._owed: asyncio.Task[bytes] | None = None  # the reply to what was asked last
        self.is_gone = False

    @classmethod
    async def open(cls, connection: socket.socket, gone: Callable[[], object]) -> Self:
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST_REPLY)
        return cls(reader, writer, gone)

    async def ask(self, request: Request, patience: float) -> Reply:
        """Raises MasterSilent after `patience` seconds, MasterGone."""
        try:
            async with asyncio.timeout(patience), self._lock:
                await self._take_owed()  # to somebody who has given up
                self._writer.write(write_request(request))
                self._owed = asyncio.ensure_future(self._read())
                return _understood(await self._take_owed())
        except TimeoutError:
            raise MasterSilent(f"the master has not answered within {patience:g} s") from None

    async def _take_owed(self) -> bytes:
        if self._owed is None:
            return b""
        line = await asyncio.shield(self._owed)  # it comes, also when nobody waits for it any more
        self._owed = None
        return line

    async def _read(self) -> bytes:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            line = b""
        if not line:
            self.is_gone = True
            self._gone()
        return line


def _understood(line: bytes) -> Done | Failed:
    if not line:
        raise MasterGone
    try:
        return read_reply(line)
    except ProtocolError as error:
        raise MasterSilent(str(error)) from None
