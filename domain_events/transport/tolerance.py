"""A pika connection that no event's headers can break.

pika raises on headers that it cannot turn into Python values, such as times beyond the calendar or doubles that are
NaN, and on those that nest too deeply. It does so in its I/O loop: one such event would end every consumer that it is
delivered to, again and again.
"""

from __future__ import annotations

import struct
from typing import Any

import pika
from pika import BasicProperties, exceptions, frame, spec
from pika.data import decode_short_string, decode_value

HEADERS_LEFT_OUT = "domain-events-headers-left-out"

DEEPEST = 64
"""Tables and arrays within each other that are kept. What can only just be read could not be written again by code that
is called a little deeper."""

_UNREADABLE = (
    ValueError,
    ArithmeticError,
    OSError,
    RecursionError,
    struct.error,
    exceptions.InvalidFieldTypeException,
)
_WITH_REPLY_TEXT = (spec.Connection.Close, spec.Channel.Close, spec.Basic.Return)
_SIZES = {b"T": 8, b"d": 8, b"f": 4}
_WITH_LENGTH = b"FASx"

_PLAIN_JSON = b"\x10application/json"  # a short string, which stands first
_CONTENT_TYPE = BasicProperties.FLAG_CONTENT_TYPE >> 8
_FLAGS = _CONTENT_TYPE | BasicProperties.FLAG_HEADERS >> 8
_OURS = b"domain-events-"


class TolerantConnection(pika.SelectConnection):
    """Leaves out the headers that pika cannot read, and counts them in a header of ours."""

    def _read_frame(self) -> tuple[int, Any]:
        try:
            consumed, value = super()._read_frame()  # type: ignore[misc]
        except _UNREADABLE:
            if self._frame_buffer[0] != spec.FRAME_HEADER:  # type: ignore[attr-defined]
                raise
            return _read_header(self._frame_buffer)  # type: ignore[attr-defined]
        if type(value) is frame.Header and _nests_deeper(value.properties.headers, 1 + DEEPEST):
            return _read_header(self._frame_buffer)  # type: ignore[attr-defined]
        if type(value) is frame.Method and isinstance(value.method, _WITH_REPLY_TEXT):
            _mend_reply_text(value.method)
        return consumed, value


def _mend_reply_text(method: Any) -> None:
    """RabbitMQ cuts it at 255 bytes, also in the middle of a character; pika then leaves it as bytes."""
    if isinstance(method.reply_text, bytes):
        method.reply_text = method.reply_text.decode(errors="replace")


def _read_header(buffer: bytes) -> tuple[int, frame.Header]:
    """A whole header frame: its size, and what can be read of it."""
    _, channel, size = struct.unpack_from(">BHL", buffer)
    end = spec.FRAME_HEADER_SIZE + size
    payload = buffer[spec.FRAME_HEADER_SIZE : end]
    body_size: int = struct.unpack_from(">Q", payload, 4)[0]
    return end + spec.FRAME_END_SIZE, frame.Header(channel, body_size, read_properties(payload[12:]))


def key_of(method: Any) -> str:
    """The routing key of a delivery. pika leaves what is no UTF-8 as bytes: those become escapes."""
    routing_key: str | bytes = method.routing_key
    return routing_key if isinstance(routing_key, str) else routing_key.decode("utf-8", "backslashreplace")


def is_plain_json(properties: object) -> bool:
    """Whether these are encoded properties that say that the body is JSON, and no header of ours is among them.

    Nearly all are so, also those with a trace context: its headers are not read by those who do not trace.
    """
    if type(properties) is bytes and properties.startswith(_PLAIN_JSON, 2):
        flags = properties[0] & _FLAGS
        return flags == _CONTENT_TYPE or (flags == _FLAGS and _OURS not in properties)
    return False


def decode_properties(encoded: bytes) -> BasicProperties:
    """As pika would; what it cannot read is left out. Whatever this is given, it raises nothing."""
    properties = BasicProperties()
    try:
        properties.decode(encoded)
    except _UNREADABLE:
        return read_properties(encoded)
    return read_properties(encoded) if _nests_deeper(properties.headers, 1 + DEEPEST) else properties


def read_properties(encoded: bytes) -> BasicProperties:
    """Properties with those of their headers that can be read. Whatever it is given, it raises nothing."""
    try:
        return _read_properties(encoded)
    except _UNREADABLE:
        return BasicProperties(headers={HEADERS_LEFT_OUT: 1})


def _read_properties(encoded: bytes) -> BasicProperties:
    """The layout is AMQP 0-9-1, section 4.2.6.1: flags, then the properties that they announce, in order."""
    (flags,) = struct.unpack_from(">H", encoded)
    begin = 2
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            _, begin = decode_short_string(encoded, begin)
    headers: dict[Any, Any] = {HEADERS_LEFT_OUT: 1}
    end = begin
    if flags & BasicProperties.FLAG_HEADERS:
        (size,) = struct.unpack_from(">I", encoded, begin)
        end = begin + 4 + size
        headers = _read_table(encoded[:end], begin + 4)
    others = struct.pack(">H", flags & ~BasicProperties.FLAG_HEADERS) + encoded[2:begin] + encoded[end:]
    properties = BasicProperties()
    try:
        properties.decode(others)
    except _UNREADABLE:  # what was read of them is there
        headers[HEADERS_LEFT_OUT] += 1
    properties.headers = headers
    return properties


def _read_table(encoded: bytes, offset: int) -> dict[Any, Any]:
    """From `offset` to the end."""
    table: dict[Any, Any] = {}
    left_out = 0
    while offset < len(encoded):
        name, offset = decode_short_string(encoded, offset)
        try:
            value, after = decode_value(encoded, offset)
        except _UNREADABLE:
            left_out += 1
            kind = encoded[offset : offset + 1]
            if kind in _SIZES:
                offset += 1 + _SIZES[kind]
            elif kind in _WITH_LENGTH and offset + 5 <= len(encoded):
                offset += 5 + int(struct.unpack_from(">I", encoded, offset + 1)[0])
            else:
                break  # nobody knows where the next one begins
        else:
            offset = after
            if offset > len(encoded) or _nests_deeper(value, DEEPEST):
                left_out += 1  # a value that ends beyond the table was cut
            else:
                table[name] = value
    table[HEADERS_LEFT_OUT] = left_out
    return table


def _nests_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_nests_deeper(each, levels - 1) for each in inner)
