"""How payloads share a pipe without a lock: in packets so small that each is written in one piece. Pure.

A write of at most PIPE_BUF bytes to a pipe is never mixed with that of another thread, and it is never done by
half (pipe(7)). A packet is its length in four bytes, and the bytes. The highest bit of the length says that the
payload goes on in the next packet of this kind; whole payloads may come in between. Only one thread may send
payloads that need several.
"""

from __future__ import annotations

import select
from collections.abc import Iterator

MAX_PAYLOAD = select.PIPE_BUF - 4
"""Bytes of a payload that is one packet."""

_MORE = 1 << 31


def packet(payload: bytes) -> bytes:
    """The only one of a payload of at most MAX_PAYLOAD bytes."""
    return len(payload).to_bytes(4) + payload


def packets(payload: bytes) -> Iterator[bytes]:
    """All of a payload of any size. Its last one is a whole payload of no bytes."""
    if len(payload) <= MAX_PAYLOAD:
        yield packet(payload)
        return
    for start in range(0, len(payload), MAX_PAYLOAD):
        part = payload[start : start + MAX_PAYLOAD]
        yield (_MORE | len(part)).to_bytes(4) + part
    yield packet(b"")


class Unpacker:
    """Puts the payloads together again."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of a payload; what is longer is cut there."""
        self._limit = limit
        self._unread = bytearray()
        self._parts = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that have become complete with this piece of the stream."""
        self._unread += data
        at = 0
        try:
            while len(self._unread) >= at + 4:
                head = int.from_bytes(self._unread[at : at + 4])
                end = at + 4 + (head & ~_MORE)
                if len(self._unread) < end:
                    break
                payload = bytes(self._unread[at + 4 : end])
                at = end
                if head & _MORE:
                    self._parts += payload[: self._limit - len(self._parts)]
                elif payload:
                    yield payload
                else:
                    payload, self._parts = bytes(self._parts), bytearray()
                    yield payload
        finally:
            del self._unread[:at]
