"""One event as the broker wants it: method, header and body frames, in one piece unless it is large.

pika makes an object of each frame, writes it, and sends each by itself. The layout is AMQP 0-9-1, sections 2.3.5 and
4.2, and basic.publish of 1.8.3.7.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from pika import BasicProperties

_FRAME = Struct(">BHL").pack  # kind, channel, size of the payload
_FRAME_OF_METHOD = Struct(">BHLHHH").pack  # ... class, method, and a field that is reserved
_FRAME_OF_HEADER = Struct(">BHLHHQ").pack  # ... class, weight, size of the body
_END_AND_FRAME = Struct(">BBHL").pack  # the end of one, and the next
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC, _PUBLISH = 60, 40
_LAST = 0xCE
_END = bytes((_LAST,))


def frames_of(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: BasicProperties,
    body: bytes,
    *,
    mandatory: bool,
    largest: int,
) -> list[bytes]:
    """Everything up to the first frame of the body, and each further frame of it by itself.

    `largest`: bytes of the body in one frame. What cannot be written raises what pika raises, or ValueError.
    """
    size = len(body)
    method = _method(channel, exchange, routing_key, mandatory)
    written = b"".join(properties.encode())
    header = _FRAME_OF_HEADER(_HEADER, channel, 12 + len(written), _BASIC, 0, size)
    if size == 0:
        return [b"".join((method, header, written, _END))]
    if size <= largest:
        return [b"".join((method, header, written, _END_AND_FRAME(_LAST, _BODY, channel, size), body, _END))]
    first, *others = (_body(channel, body[begin : begin + largest]) for begin in range(0, size, largest))
    return [b"".join((method, header, written, _END, first)), *others]


def _body(channel: int, part: bytes) -> bytes:
    return b"".join((_FRAME(_BODY, channel, len(part)), part, _END))


@lru_cache(maxsize=1024)  # a process sends the same few again and again
def _method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The whole frame of basic.publish."""
    names = _short_string(exchange) + _short_string(routing_key)
    frame = _FRAME_OF_METHOD(_METHOD, channel, 7 + len(names), _BASIC, _PUBLISH, 0)
    return frame + names + (b"\x01" if mandatory else b"\x00") + _END


def _short_string(text: str) -> bytes:
    """Raises ValueError beyond 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
