"""Whether a broker takes logins. Raw AMQP: this runs before there is any package."""

from __future__ import annotations

import contextlib
import socket
import struct

LOOPBACK = "127.0.0.1"


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 5):
        return True
    return False


def takes_login(port: int) -> bool:
    """Whether guest may log in to the virtual host / (AMQP 0-9-1, section 2.2.4; class 10 is connection)."""
    with contextlib.suppress(OSError, struct.error), socket.create_connection((LOOPBACK, port), 5) as server:
        stream = server.makefile("rb")

        def send(method: int, arguments: bytes) -> None:
            payload = struct.pack(">HH", 10, method) + arguments
            server.sendall(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")

        def receive(method: int) -> bytes:
            payload = stream.read(struct.unpack(">BHI", stream.read(7))[2] + 1)
            if struct.unpack_from(">HH", payload) != (10, method):
                raise ConnectionRefusedError("the broker answered something else")
            return payload[4:-1]

        server.sendall(b"AMQP\x00\x00\x09\x01")
        receive(10)  # start
        login = b"\0guest\0guest"
        send(11, struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(login)) + login + b"\x05en_US")
        send(31, receive(30))  # tune, tune-ok
        send(40, b"\x01/\0\0")  # open
        receive(41)
        send(50, struct.pack(">HBHH", 200, 0, 0, 0))  # close
        receive(51)
        return True
    return False
