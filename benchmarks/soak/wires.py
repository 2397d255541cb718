"""The wires between clients and broker, that can be cut, slowed down and gone silent.

tests/relay.py is for one link at a time. Here all links of a process are meant, hundreds of them in an hour, and one
that has gone silent stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536


class Wire:
    """Listens on `url`; what connects there is passed on to the broker. In a thread of its own.

    While the broker is away, its clients are reset at once, as a closed port would do it.
    """

    def __init__(self, broker_url: str) -> None:
        parts = urlsplit(broker_url)
        self._broker = (parts.hostname or "localhost", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
        self._links: set[_Link] = set()
        self._delay = 0.0
        self._hole = asyncio.Event()  # set: everything passes
        self._hole.set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="wire")
        self._thread.start()

    def cut(self) -> None:
        """End all connections in good order (FIN)."""
        self._each(lambda link: link.end(hard=False))

    def reset(self) -> None:
        """RST to both ends of all connections."""
        self._each(lambda link: link.end(hard=True))

    def half_open(self) -> None:
        """The broker's ends are reset, the clients' stay open, and nothing ever comes again."""
        self._each(_Link.go_silent)

    def hole(self, *, on: bool) -> None:
        """Accepts everything and passes nothing on, until it is off again; then what was held up comes."""
        self._do(self._hole.clear if on else self._hole.set)

    def slow(self, delay: float) -> None:
        """Everything takes so many seconds longer, each way."""

        def change() -> None:
            self._delay = delay

        self._do(change)

    def close(self) -> None:
        if not self._loop.is_closed():
            self._server.close()
            self.hole(on=False)
            self.reset()
            self._do(self._loop.stop)
            self._thread.join(5.0)

    def _each(self, what: Callable[[_Link], None]) -> None:
        def run() -> None:
            for link in list(self._links):
                what(link)

        self._do(run)

    def _do(self, what: Callable[[], object]) -> None:
        """In the loop's thread; returns when it is done."""
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(5.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(*self._broker)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, broker_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(reader, broker_writer, link), self._pump(broker_reader, writer, link, from_broker=True)
            )
        finally:
            link.end(hard=False)
            self._links.discard(link)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, link: _Link, *, from_broker: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._hole.wait()
                if not link.is_silent:
                    target.write(data)
                    await target.drain()
        if not (link.is_silent and from_broker):
            link.end(hard=False)


class _Link:
    """One client's connection."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self._client = client
        self._broker = broker
        self.is_silent = False

    def end(self, *, hard: bool) -> None:
        for writer in (self._client, self._broker):
            _reset(writer) if hard else writer.close()

    def go_silent(self) -> None:
        self.is_silent = True
        _reset(self._broker)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        # No lingering: close(2) sends RST (socket(7)).
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
