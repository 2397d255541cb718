"""A wire between a client and the broker that can be counted, held up and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit


class Link:
    """One client's connection."""

    def __init__(self, client: socket.socket, broker: socket.socket, delay: float = 0.0) -> None:
        self._sockets = (client, broker)
        self._up, self._down = threading.Event(), threading.Event()
        self.delay = delay
        """Seconds that everything takes longer, each way."""
        self.hold_down_at: bytes | None = None
        """Holds up what goes to the client as soon as it contains this."""
        self.let_go()
        for source, target, gate in ((client, broker, self._up), (broker, client, self._down)):
            threading.Thread(target=self._pump, args=(source, target, gate), daemon=True).start()

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Pass nothing on to the broker (`up`) or to the client (`down`) from now on."""
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    @property
    def is_held(self) -> bool:
        return not (self._up.is_set() and self._down.is_set())

    def let_go(self) -> None:
        self._up.set()
        self._down.set()

    def cut(self) -> None:
        """End it on both sides. What is held up is lost."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, target: socket.socket, gate: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay)
                if gate is self._down and self.hold_down_at is not None and self.hold_down_at in data:
                    gate.clear()
                gate.wait()
                target.sendall(data)
        self.cut()


class Relay:
    """Listens on `url`; every connection to it becomes a link to the broker."""

    def __init__(self, broker_url: str, port: int = 0) -> None:
        parts = urlsplit(broker_url)
        self._broker = (parts.hostname or "localhost", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", port))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
        self.links: list[Link] = []
        """In the order in which they were opened."""
        self.deaf = False
        """Accepts, and says nothing."""
        self.delay = 0.0
        """Of links that are opened from now on, see there."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for link in self.links:
            link.cut()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        for link in self.links:
            link.let_go()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                link = Link(client, socket.create_connection(self._broker), self.delay)
                if self.deaf:
                    link.hold(up=True, down=True)
                self.links.append(link)


@contextlib.contextmanager
def relay(broker_url: str, port: int = 0) -> Iterator[Relay]:
    """A relay on `port`, or on any."""
    made = Relay(broker_url, port)
    try:
        yield made
    finally:
        made.close()
