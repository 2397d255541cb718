"""A wire between a client and the broker that can be counted, held up, slowed down and cut."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

BASIC_ACK = struct.pack(">HH", 60, 80)
REMEMBERED = 1 << 20
"""Bytes of what passed."""


class Way:
    """One direction of a link. What is held up stays, in this order; so does the end."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.is_held = False
        self.passed = bytearray()
        self.hold_at: bytes | None = None
        self.rewrite: tuple[bytes, bytes] | None = None
        self._under_way: deque[tuple[float, bytes]] = deque()  # with the time of arrival; b"" is the end

    @property
    def next_arrival(self) -> float | None:
        """When something arrives (time.monotonic()); None: nothing does."""
        return self._under_way[0][0] if self._under_way and not self.is_held else None

    @property
    def listens(self) -> bool:
        return not self.is_held and not (self._under_way and not self._under_way[-1][1])

    def read(self, delay: float) -> None:
        data = self.source.recv(65536)
        if self.hold_at is not None and self.hold_at in data:
            self.is_held = True
        if self.rewrite is not None:
            data = data.replace(*self.rewrite)
        self._under_way.append((time.monotonic() + delay, data))

    def deliver(self) -> bool:
        """Passes on what is due. False at the end."""
        while (due := self.next_arrival) is not None and due <= time.monotonic():
            _, data = self._under_way.popleft()
            if not data:
                return False
            self.passed += data
            del self.passed[:-REMEMBERED]
            self.target.sendall(data)
        return True


class Link:
    """One client's connection."""

    def __init__(self, client: socket.socket, broker: socket.socket, delay: float = 0.0) -> None:
        self._client, self._broker = client, broker
        self._up, self._down = Way(client, broker), Way(broker, client)
        self._wake, self._bell = socket.socketpair()
        self._end: str = ""
        self._silent: socket.socket | None = None
        self.delay = delay
        """Seconds that everything takes longer, each way, from now on."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Nothing has passed before."""
        self._thread.start()

    @property
    def hold_down_at(self) -> bytes | None:
        """Holds up what goes to the client as soon as it contains this."""
        return self._down.hold_at

    @hold_down_at.setter
    def hold_down_at(self, mark: bytes | None) -> None:
        self._down.hold_at = mark

    @property
    def rewrite_down(self) -> tuple[bytes, bytes] | None:
        """What to put in the place of what, of the same length, in what goes to the client."""
        return self._down.rewrite

    @rewrite_down.setter
    def rewrite_down(self, rewrite: tuple[bytes, bytes] | None) -> None:
        self._down.rewrite = rewrite

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Pass nothing on to the broker (`up`) or to the client (`down`) from now on, neither bytes nor the end."""
        self._up.is_held |= up
        self._down.is_held |= down
        self._ring()

    @property
    def is_over(self) -> bool:
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def is_held(self) -> bool:
        return self._up.is_held or self._down.is_held

    def let_go(self) -> None:
        self._up.is_held = self._down.is_held = False
        self._ring()

    def acks(self) -> list[tuple[int, bool]]:
        """Those that the client has sent, as (delivery tag, multiple), all channels in one."""
        acks: list[tuple[int, bool]] = []
        data = bytes(self._up.passed)
        at = 8  # after the protocol header
        while at + 7 <= len(data):
            kind, size = struct.unpack_from(">BxxI", data, at)
            if kind == 1 and data[at + 7 : at + 11] == BASIC_ACK:
                tag, multiple = struct.unpack_from(">QB", data, at + 11)
                acks.append((tag, bool(multiple)))
            at += size + 8
        return acks

    def acked(self) -> set[int]:
        """The delivery tags that the client has acked, all channels in one."""
        tags: set[int] = set()
        for tag, multiple in self.acks():
            tags |= set(range(1, tag + 1)) if multiple else {tag}
        return tags

    def cut(self) -> None:
        """End it on both sides. What is held up is lost."""
        self._finish("cut")

    def reset(self) -> None:
        """End it with a RST on both sides."""
        self._finish("reset")

    def forget_client(self) -> None:
        """The broker sees a RST, the client nothing: half-open. `let_go`: its next byte is answered with a RST."""
        self.hold(up=True, down=True)
        self._silent = self._client
        self._finish("half")

    def forget_broker(self) -> None:
        """The client sees a RST, the broker nothing. `let_go`: its next byte is answered with a RST."""
        self.hold(up=True, down=True)
        self._silent = self._broker
        self._finish("half")

    def _finish(self, how: str) -> None:
        self._end = self._end or how
        if self._end == "half" and how == "cut":
            self._up.is_held = self._down.is_held = False
        self._ring()
        if how == "cut":
            # Also out of a send that nobody reads.
            for each in (self._client, self._broker):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:  # else it ends as soon as it starts
            self._thread.join(10)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while not self._end:
                self._turn()
        for each in (self._client, self._broker):
            if each is not self._silent:
                if self._end in ("reset", "half"):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
        while self._silent is not None:
            self._wake.recv(64)
            if not self.is_held:
                self._silent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._silent.close()
                self._silent = None
        self._wake.close()
        self._bell.close()

    def _turn(self) -> None:
        ways = (self._up, self._down)
        arrivals = [way.next_arrival for way in ways if way.next_arrival is not None]
        wait = max(0.0, min(arrivals) - time.monotonic()) if arrivals else None
        readable, _, _ = select.select([self._wake, *(way.source for way in ways if way.listens)], [], [], wait)
        if self._wake in readable:
            self._wake.recv(64)
            return
        for way in ways:
            if way.source in readable:
                way.read(self.delay)
            if not way.deliver():
                self._end = "cut"


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
        self.rewrite_down: tuple[bytes, bytes] | None = None
        self.hold_down_at: bytes | None = None
        """These three: of links that are opened from now on, see there."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for link in self.links:
            link.cut()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """All are cut, and whoever comes back at once hears nothing before the end of the block."""
        self.deaf = True
        self.cut()
        yield
        self.deaf = False
        self.cut()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else the accept() that waits would take one more
        self._listener.close()
        self.cut()
        for link in self.links:
            link.let_go()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    broker = socket.create_connection(self._broker)
                except OSError:
                    client.close()
                    continue
                link = Link(client, broker, self.delay)
                link.rewrite_down = self.rewrite_down
                link.hold_down_at = self.hold_down_at
                if self.deaf:
                    link.hold(up=True, down=True)
                # Before it starts: who has an answer finds its link here.
                self.links.append(link)
                link.start()


@contextlib.contextmanager
def relay(broker_url: str, port: int = 0) -> Iterator[Relay]:
    """A relay on `port`, or on any."""
    made = Relay(broker_url, port)
    try:
        yield made
    finally:
        made.close()
