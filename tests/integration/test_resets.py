"""A connection that is reset as soon as it stands is a failed one, and nothing more."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from domain_events.settings import configured_brokers
from domain_events.transport.connection import Connection
from domain_events.transport.io_thread import IOThread
from tests.waiting import wait_until

ATTEMPTS = 1000
"""pika's loop ended within 32 to 163 of them."""


@contextlib.contextmanager
def resetting() -> Iterator[int]:
    """The port of something that accepts, and resets at once: as a load balancer whose broker is down."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_a_connection_that_is_reset_at_once_has_failed_and_the_thread_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crashed: list[BaseException] = []
    told: list[Exception] = []
    with resetting() as port:
        brokers = configured_brokers(f"amqp://127.0.0.1:{port}", "producer")
        assert brokers is not None
        io = IOThread("test", crashed.append)

        def lost(error: Exception) -> None:
            told.append(error)
            if len(told) < ATTEMPTS:
                io.later(0, connection.open)

        connection = Connection(io, brokers, name="test", opened=lambda _: None, lost=lost)
        io.call(connection.open)
        io.start()
        try:
            wait_until(lambda: len(told) >= ATTEMPTS or crashed, 60, "all attempts are told")
        finally:
            io.stop()
    assert not crashed
    assert {type(error).__name__ for error in told} == {"ConnectionFailed"}
