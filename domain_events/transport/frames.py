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
_TIMESTAMP = Struct(">Q").pack
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC, _PUBLISH = 60, 40
_END = b"\xce"

_USUAL = (
    BasicProperties.FLAG_CONTENT_TYPE
    | BasicProperties.FLAG_CONTENT_ENCODING
    | BasicProperties.FLAG_DELIVERY_MODE
    | BasicProperties.FLAG_MESSAGE_ID
    | BasicProperties.FLAG_TIMESTAMP
    | BasicProperties.FLAG_TYPE
).to_bytes(2, "big")


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
    written = _written(properties)
    first = [
        _method(channel, exchange, routing_key, mandatory),
        _FRAME_OF_HEADER(_HEADER, channel, 12 + len(written), _BASIC, 0, len(body)),
        written,
        _END,
    ]
    if len(body) <= largest:
        if body:
            first += (_FRAME(_BODY, channel, len(body)), body, _END)
        return [b"".join(first)]
    bodies = [_body(channel, body[begin : begin + largest]) for begin in range(0, len(body), largest)]
    return [b"".join([*first, bodies[0]]), *bodies[1:]]


def _body(channel: int, part: bytes) -> bytes:
    return b"".join((_FRAME(_BODY, channel, len(part)), part, _END))


def _written(properties: BasicProperties) -> bytes:
    """Quickly those that our events have, and only those."""
    if not (
        properties.headers is None
        and properties.app_id is None
        and properties.priority is None
        and properties.correlation_id is None
        and properties.reply_to is None
        and properties.expiration is None
        and properties.user_id is None
        and properties.cluster_id is None
        and properties.content_type
        and properties.content_encoding
        and properties.delivery_mode
        and properties.message_id
        and properties.timestamp
        and properties.type
    ):
        return b"".join(properties.encode())
    message_id = properties.message_id.encode()
    return b"".join(
        (
            _constant(properties.content_type, properties.content_encoding, properties.delivery_mode),
            bytes((len(message_id),)),
            message_id,
            _TIMESTAMP(properties.timestamp),
            _short_string(properties.type),
        )
    )


# Remembered, for a process sends the same few again and again.


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The whole frame of basic.publish."""
    names = _short_string(exchange) + _short_string(routing_key)
    frame = _FRAME_OF_METHOD(_METHOD, channel, 7 + len(names), _BASIC, _PUBLISH, 0)
    return frame + names + (b"\x01" if mandatory else b"\x00") + _END


@lru_cache(maxsize=64)
def _constant(content_type: str, content_encoding: str, delivery_mode: int) -> bytes:
    return _USUAL + _short_string(content_type) + _short_string(content_encoding) + bytes((delivery_mode,))


@lru_cache(maxsize=1024)
def _short_string(text: str) -> bytes:
    """Raises ValueError beyond 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
