"""Deliveries cut straight out of the byte stream: the short way of what a consumer is sent most.

pika makes three frame objects of a delivery and sends each through its table of callbacks, which costs more than all
that we do with the event. Here a delivery that lies whole in what was read is recognized by its bytes, and told to its
subscription. Whatever is not exactly that goes pika's own way: other methods, other consumers, what began in an earlier
read, anything malformed. The layout is AMQP 0-9-1, sections 4.2.3 and 4.2.6, and basic.deliver of 1.8.3.13.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

Told: TypeAlias = Callable[[int, bytes, bool, bytes, bytes], object]
"""Delivery tag, routing key, whether redelivered, properties as they came, body."""

LONGEST_WAIT = 16 * 1024
"""Bytes of a delivery that are kept until the rest of it has come. A larger one, which comes in many pieces, is put
together by pika: to look at all of it again with each piece would cost the square of its size."""

METHOD, HEADER, BODY = 1, 2, 3
_FRAME_END = 0xCE
_FRAME = 8  # bytes of a frame that are no payload: kind, channel, size, and the end
_SMALLEST_HEADER = 22  # bytes of a header frame without any properties
_METHOD = Struct(">BHLL").unpack_from  # kind, channel, size of the payload; class and method in one
_TAG = Struct(">QBB").unpack_from  # delivery tag, redelivered, length of the exchange's name
_HEADER = Struct(">BHLHHQ").unpack_from  # kind, channel, size; class, weight, size of the body
_BODY = Struct(">BHL").unpack_from
_DELIVER = 60 << 16 | 60
_BASIC = 60


class Deliveries:
    """Of one connection."""

    def __init__(self) -> None:
        self._consumers: dict[int, tuple[bytes, Told]] = {}

    def expect(self, channel_number: int, consumer_tag: str, told: Told) -> None:
        """Tell `told` of the deliveries to this consumer, from now on, until they are left to pika again."""
        tag = consumer_tag.encode()
        self._consumers[channel_number] = bytes([len(tag)]) + tag, told

    def leave(self, channel_number: int) -> None:
        self._consumers.pop(channel_number, None)

    def cut(self, read: bytes) -> tuple[int, bool]:
        """Tell of all deliveries that `read`, which begins with a frame, begins with.

        Returns how many bytes that were, and whether the rest is for pika: else it is the beginning of a delivery,
        or nothing.
        """
        consumers = self._consumers
        at, end = 0, len(read)
        while at < end and consumers:
            # Nothing is read beyond `end`: each step looks first whether so much is there.
            if end - at < 11:
                return at, read[at] != METHOD
            kind, channel, size, method = _METHOD(read, at)
            consumer = consumers.get(channel)
            if kind != METHOD or method != _DELIVER or consumer is None:
                return at, True
            tag_at = at + 11 + len(consumer[0])
            header_at = at + _FRAME + size
            if header_at + _SMALLEST_HEADER > end:
                return at, end - at > LONGEST_WAIT
            if (
                not read.startswith(consumer[0], at + 11)
                or tag_at + 12 > header_at
                or read[header_at - 1] != _FRAME_END
            ):
                return at, True
            delivery_tag, redelivered, length = _TAG(read, tag_at)
            key_at = tag_at + 11 + length
            kind, header_channel, size, class_id, _weight, body_size = _HEADER(read, header_at)
            body_at = header_at + _FRAME + size
            if (
                kind != HEADER
                or header_channel != channel
                or class_id != _BASIC
                or size < _SMALLEST_HEADER - _FRAME
                or key_at >= header_at
                or key_at + read[key_at - 1] != header_at - 1
            ):
                return at, True
            after = body_at + (_FRAME + body_size if body_size else 0)
            if after > end:
                return at, end - at > LONGEST_WAIT or after - at > LONGEST_WAIT
            if read[body_at - 1] != _FRAME_END:
                return at, True
            if body_size:
                kind, body_channel, size = _BODY(read, body_at)
                # A body of several frames is larger than this one, and left to pika.
                if kind != BODY or body_channel != channel or size != body_size or read[after - 1] != _FRAME_END:
                    return at, True
            at = after
            consumer[1](
                delivery_tag,
                read[key_at : header_at - 1],
                redelivered & 1 == 1,
                read[header_at + 19 : body_at - 1],
                read[body_at + 7 : after - 1] if body_size else b"",
            )
        return at, at < end
