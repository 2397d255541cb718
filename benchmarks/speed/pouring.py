"""Very many events into one queue, as fast as the broker takes them: the same frames over and over on a bare socket."""

from __future__ import annotations

import socket
from typing import Any

import pika
from pika import spec
from pika.frame import Body, Header, Method, ProtocolHeader, decode_frame

from benchmarks.speed.broker import PROPERTIES, body

AT_ONCE = 500
"""Events for each write."""


def pour(url: str, queue: str, count: int) -> None:
    """Returns when the broker has all of them. Raises OSError; ConnectionError when the broker refuses."""
    parameters = pika.URLParameters(url)
    with _Line(parameters) as line:
        line.ask(spec.Channel.Open(), channel=1)
        line.ask(spec.Queue.Declare(queue=queue, passive=True), channel=1)
        one = _frames(queue, body(queue))
        many = one * AT_ONCE
        for _ in range((count - 1) // AT_ONCE):
            line.send(many)
        line.send(one * ((count - 1) % AT_ONCE))
        # The confirm of the last comes after all that was sent before it on this channel.
        line.ask(spec.Confirm.Select(), channel=1)
        line.send(one)
        line.read(spec.Basic.Ack)
        line.ask(spec.Connection.Close(200, "", 0, 0), channel=0)


def _frames(queue: str, event: bytes) -> bytes:
    """All of one event."""
    publish = Method(1, spec.Basic.Publish(routing_key=queue))
    return publish.marshal() + Header(1, len(event), PROPERTIES).marshal() + Body(1, event).marshal()


class _Line:
    """A connection that can do just this."""

    def __init__(self, parameters: pika.URLParameters) -> None:
        self._socket = socket.create_connection((parameters.host, parameters.port), timeout=120)
        self._unread = b""
        self.send(ProtocolHeader().marshal())
        self.read(spec.Connection.Start)
        mechanism, response = parameters.credentials.response_for(spec.Connection.Start(mechanisms="PLAIN"))
        assert mechanism == "PLAIN"
        assert response, "the URL has no name and password"
        tune = self.ask(spec.Connection.StartOk({}, mechanism, response.decode(), "en_US"), spec.Connection.Tune)
        # Without heartbeats: nobody would answer them here.
        self.send_method(spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        self.ask(spec.Connection.Open(parameters.virtual_host, insist=True), spec.Connection.OpenOk)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, frames: bytes) -> None:
        self._socket.sendall(frames)

    def send_method(self, method: Any, channel: int = 0) -> None:
        self.send(Method(channel, method).marshal())

    def ask(self, method: Any, answer: Any = None, channel: int = 0) -> Any:
        self.send_method(method, channel)
        return self.read(answer)

    def read(self, wanted: Any = None) -> Any:
        """The next method, which must be a `wanted`. Raises ConnectionError when it is another, as a refusal is."""
        while True:
            used, frame = decode_frame(self._unread)
            if frame is None:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionError("the broker has closed the connection")
                self._unread += data
                continue
            self._unread = self._unread[used:]
            method: Any = getattr(frame, "method", None)  # only these come: nothing is consumed
            refused = isinstance(method, (spec.Connection.Close, spec.Channel.Close))
            if refused or (wanted is not None and not isinstance(method, wanted)):
                raise ConnectionError(f"the broker says {method}")
            return method
