"""Deliveries cut straight out of the byte stream: the short way of what a consumer is sent most.

pika makes three frame objects of a delivery and sends each through its table of callbacks, which costs more than all
that we do with the event. Here a delivery that lies whole in what was read is recognized by its bytes, and told to its
subscription. Whatever is not exactly that goes pika's own way: other methods, other consumers, what began in an earlier
read, anything malformed. The layout is AMQP 0-9-1, sections 4.2.3 and 4.2.6, and basic.deliver of 1.8.3.13.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

Told: TypeAlias = Callable[[int, str, bytes, bytes], object]
"""Delivery tag, routing key, properties as they came, body."""

LONGEST_WAIT = 16 * 1024
"""Bytes of a delivery that are kept until the rest of it has come. A larger one, which comes in many pieces, is put
together by pika: to look at all of it again with each piece would cost the square of its size."""

METHOD, HEADER, BODY = 1, 2, 3
_FRAME_END = 0xCE
_END = bytes([_FRAME_END])
_FRAME = 8  # bytes of a frame that are no payload: kind, channel, size, and the end
_SMALLEST_HEADER = 22  # bytes of a header frame without any properties
_METHOD = Struct(">BHLL").unpack_from  # kind, channel, size of the payload; class and method in one
_TAG = Struct(">QBB").unpack_from  # delivery tag, redelivered, length of the exchange's name
_HEADER = Struct(">BHLHHQ").unpack_from  # kind, channel, size; class, weight, size of the body
_BODY = Struct(">BHL").unpack_from
_DELIVER = 60 << 16 | 60
_BASIC = 60


class _Likeness(NamedTuple):
    """What a delivery has in common with the next one when an event of the same kind follows: all but delivery tag,
    properties and body, and even their places are the same but for the body's end."""

    head: bytes  # up to the delivery tag
    middle: bytes  # from the exchange's name up to the size of the body
    body_head: bytes  # kind and channel of the body's frame
    size: int  # in bytes, up to where the body begins
    unpack: Callable[[bytes, int], tuple[Any, ...]]
    """head, delivery tag, middle, size of the body, properties, end of their frame, body_head, size of its frame."""
    routing_key: str
    told: Told


_NONE = _Likeness(b"", b"", b"", 1 << 62, lambda *_: (), "", lambda *_: None)  # no read has room for it


class Deliveries:
    """Of one connection."""

    def __init__(self) -> None:
        self._consumers: dict[int, tuple[bytes, Told]] = {}
        self._last = _NONE

    def expect(self, channel_number: int, consumer_tag: str, told: Told) -> None:
        """Tell `told` of the deliveries to this consumer, from now on, until they are left to pika again."""
        tag = consumer_tag.encode()
        self._consumers[channel_number] = bytes([len(tag)]) + tag, told
        self._last = _NONE

    def leave(self, channel_number: int) -> None:
        self._consumers.pop(channel_number, None)
        self._last = _NONE

    def cut(self, read: bytes) -> tuple[int, bool]:
        """Tell of all deliveries that `read`, which begins with a frame, begins with.

        Returns how many bytes that were, and whether the rest is for pika: else it is the beginning of a delivery,
        or nothing.
        """
        at, end = 0, len(read)
        while at < end and self._consumers:
            at = self._cut_alike(read, at)
            if at == end:
                break
            after, is_for_pika = self._cut_one(read, at)
            if after == at:
                return at, is_for_pika
            at = after
        return at, at < end

    def _cut_alike(self, read: bytes, at: int) -> int:
        """Tell of those that are as the last one was. Returns where they end."""
        last = self._last
        head, middle, body_head, size, unpack, routing_key, told = last
        room = len(read) - size
        while at < room:
            head_, tag, middle_, body_size, properties, end, body_head_, frame_size = unpack(read, at)
            after = at + size + body_size + 1
            if (
                head_ != head
                or middle_ != middle
                or body_head_ != body_head
                or frame_size != body_size
                or end != _FRAME_END
                or read[after - 1 : after] != _END
            ):
                break
            told(tag, routing_key, properties, read[at + size : after - 1])
            at = after
            if self._last is not last:
                break  # whoever was told has left
        return at

    def _cut_one(self, read: bytes, at: int) -> tuple[int, bool]:
        """Tell of the one that begins at `at`, if it lies there whole. Returns where it ends; else `at`, and whether
        what is there is for pika."""
        # Nothing is read beyond `end`: each step looks first whether so much is there.
        end = len(read)
        if end - at < 11:
            return at, read[at] != METHOD
        kind, channel, size, method = _METHOD(read, at)
        consumer = self._consumers.get(channel)
        if kind != METHOD or method != _DELIVER or consumer is None:
            return at, True
        tag_at = at + 11 + len(consumer[0])
        header_at = at + _FRAME + size
        if header_at + _SMALLEST_HEADER > end:
            return at, end - at > LONGEST_WAIT
        if not read.startswith(consumer[0], at + 11) or tag_at + 12 > header_at or read[header_at - 1] != _FRAME_END:
            return at, True
        delivery_tag, _redelivered, length = _TAG(read, tag_at)
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
        routing_key = read[key_at : header_at - 1].decode("utf-8", "backslashreplace")
        head, middle = read[at:tag_at], read[tag_at + 9 : header_at + 11]
        self._last = _Likeness(
            head,
            middle,
            bytes([BODY]) + read[at + 1 : at + 3],
            body_at + 7 - at,
            Struct(f">{len(head)}sQx{len(middle)}sQ{body_at - header_at - 20}sB3sL").unpack_from,
            routing_key,
            consumer[1],
        )
        consumer[1](
            delivery_tag,
            routing_key,
            read[header_at + 19 : body_at - 1],
            read[body_at + 7 : after - 1] if body_size else b"",
        )
        return after, False
