"""Events on their way out of a channel: their frames are joined, and written together."""

from __future__ import annotations

from typing import Any

from pika.channel import Channel

from domain_events.transport.frames import frames_of
from domain_events.transport.publication import Publication

LARGEST_WRITE = 32 * 1024
"""Bytes that are joined, but for a single event: the broker shall begin before all is written."""


class Outgoing:
    """Of one channel. What is added is written at the next `flush`, or before."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number: int = channel.channel_number
        self._connection: Any = channel.connection
        self._joined: list[bytes] = []
        self._size = 0
        self._largest: int | None = None
        """Bytes of a body in one frame. None: this pika sends its frames in another way, and publishes by itself."""
        if callable(getattr(self._connection, "_output_marshaled_frames", None)):
            self._largest = getattr(self._connection, "_body_max_length", None)

    def add(self, publication: Publication) -> None:
        if self._largest is None:
            self._channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.body,
                publication.properties,
                mandatory=publication.mandatory,
            )
            return
        frames = frames_of(
            self._number,
            publication.exchange,
            publication.routing_key,
            publication.properties,
            publication.body,
            mandatory=publication.mandatory,
            largest=self._largest,
        )
        first = frames[0]
        self._joined.append(first)
        self._size += len(first)
        if self._size >= LARGEST_WRITE or len(frames) > 1:
            self.flush()
            if len(frames) > 1:
                # Not joined: of what the socket does not take at once, pika copies the rest each time.
                self._connection._output_marshaled_frames(frames[1:])

    def flush(self) -> None:
        """All of it is in the socket, or in pika's buffer. pika counts its bytes, and takes it for one frame."""
        joined, self._joined = self._joined, []
        self._size = 0
        if joined:
            self._connection._output_marshaled_frames([b"".join(joined)])
