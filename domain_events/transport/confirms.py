"""Confirms cut straight out of the byte stream: the short way of what a publisher is sent most.

As `deliveries` does it for consumers: what is not exactly a `basic.ack` for the channel goes pika's own way. The layout
is AMQP 0-9-1, section 4.2.3, and basic.ack of 1.8.3.13.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

Told: TypeAlias = Callable[[int, bool], object]
"""Delivery tag, and whether all before it are meant, too."""

_ACK_FRAME = Struct(">BHLLQBB")  # kind, channel, size; class and method in one; tag, multiple, the frame's end
_METHOD = 1
_SIZE = 13
_ACK = 60 << 16 | 80
_END = 0xCE


class Confirms:
    """Of one connection, for one channel at a time."""

    def __init__(self) -> None:
        self._channel: int | None = None
        self._told: Told = _nobody

    @property
    def are_expected(self) -> bool:
        return self._channel is not None

    def expect(self, channel_number: int, told: Told) -> None:
        """Tell `told` of the confirms on this channel from now on, instead of those before."""
        self._channel = channel_number
        self._told = told

    def cut(self, read: bytes) -> tuple[int, bool]:
        """Tell of all confirms that `read`, which begins with a frame, begins with.

        Returns how many bytes that were, and whether there is a rest, which is for pika.
        """
        at, end = 0, len(read)
        while at + _ACK_FRAME.size <= end:
            kind, channel, size, method, tag, multiple, last = _ACK_FRAME.unpack_from(read, at)
            if kind != _METHOD or channel != self._channel or size != _SIZE or method != _ACK or last != _END:
                break
            at += _ACK_FRAME.size
            self._told(tag, multiple & 1 == 1)
        return at, at < end


def _nobody(tag: int, multiple: bool) -> None:
    """No channel is in confirm mode."""
