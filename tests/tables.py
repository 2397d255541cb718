"""AMQP field tables byte by byte (AMQP 0-9-1, section 4.2.5.5): what pika would not write, and what no broker would."""

from __future__ import annotations

import struct

from pika import BasicProperties

FIXED = dict(zip("tbBsuUIiflLdTDV", (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 5, 0), strict=True))
"""Bytes of the values of a kind, in RabbitMQ's dialect (rabbitmq.com/docs/amqp-0-9-1-errata, section 3)."""


def short(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def long(text: str | bytes, kind: str = "S") -> bytes:
    """A value: a string (S), bytes (x), or what is inside an array (A) or a table (F)."""
    data = text.encode() if isinstance(text, str) else text
    return kind.encode() + struct.pack(">I", len(data)) + data


def number(value: int, kind: str = "l") -> bytes:
    return kind.encode() + value.to_bytes(FIXED[kind], signed=kind not in "TLBui")


def entries(**values: bytes) -> bytes:
    """The inside of a table; `_` in a name stands for `-`."""
    return b"".join(short(name.replace("_", "-")) + value for name, value in values.items())


def properties(table: bytes, rest: BasicProperties | None = None) -> bytes:
    """Properties with these headers; the others are those of `rest`, which has none."""
    encoded = b"".join((rest or BasicProperties(content_type="application/json")).encode())
    (flags,) = struct.unpack_from(">H", encoded)
    at = 2
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            at += 1 + encoded[at]
    flags |= BasicProperties.FLAG_HEADERS
    return struct.pack(">H", flags) + encoded[2:at] + struct.pack(">I", len(table)) + table + encoded[at:]


class Raw(BasicProperties):
    """Properties as these bytes, for pika to publish."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        return [self._encoded]
