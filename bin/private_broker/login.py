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
    """Whether a whole AMQP 0-9-1 login as guest into the virtual host / works (specification, 2.2.4)."""

    def method(class_id: int, method_id: int, arguments: bytes) -> bytes:
        payload = struct.pack(">HH", class_id, method_id) + arguments
        return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"

    with contextlib.suppress(OSError, struct.error), socket.create_connection((LOOPBACK, port), 5) as server:
        stream = server.makefile("rb")

        def expect(class_id: int, method_id: int) -> bytes | None:
            size = struct.unpack(">BHI", stream.read(7))[2]
            payload = stream.read(size + 1)
            return payload[4:-1] if struct.unpack_from(">HH", payload) == (class_id, method_id) else None

        server.sendall(b"AMQP\x00\x00\x09\x01")
        if expect(10, 10) is None:  # connection.start
            return False
        login = b"\0guest\0guest"
        start_ok = struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(login)) + login + b"\x05en_US"
        server.sendall(method(10, 11, start_ok))
        tune = expect(10, 30)
        if tune is None:
            return False
        server.sendall(method(10, 31, tune) + method(10, 40, b"\x01/\0\0"))  # tune-ok, open
        if expect(10, 41) is None:  # open-ok
            return False
        server.sendall(method(10, 50, struct.pack(">HBHH", 200, 0, 0, 0)))  # close
        return expect(10, 51) is not None
    return False
