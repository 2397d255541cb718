"""Whether a broker takes logins, and which it is. Raw AMQP: this runs before there is any package."""

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
    """Whether guest may log in to the virtual host /."""
    return login(port) is not None


def login(port: int) -> str | None:
    """The version of the broker that let guest log in to / (AMQP 0-9-1, section 2.2.4; class 10 is connection)."""
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
        properties = receive(10)  # start
        answer = b"\0guest\0guest"
        send(11, struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(answer)) + answer + b"\x05en_US")
        send(31, receive(30))  # tune, tune-ok
        send(40, b"\x01/\0\0")  # open
        receive(41)
        send(50, struct.pack(">HBHH", 200, 0, 0, 0))  # close
        receive(51)
        # Behind the field's name and its type, S, come four bytes of length and the text.
        _, _, behind = properties.partition(b"\x07versionS")
        return behind[4 : 4 + int.from_bytes(behind[:4])].decode()
    return None
