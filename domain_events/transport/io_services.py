"""pika's way to the event loop: no connection that was reset at once can stop it, and names cost little memory."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pika.adapters.utils import nbio_interface
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter


class IOServices(SelectorIOServicesAdapter):
    """Tells of a connection that was reset between connect() and pika's getpeername(), as one that failed.

    pika 1.3 raises ValueError out of its loop then, and the thread ends. It happens where something accepts and resets
    at once, as a load balancer whose broker is down.
    """

    def getaddrinfo(self, host: Any, *args: Any, **options: Any) -> nbio_interface.AbstractIOReference:
        # Of a string Python looks for characters beyond ASCII, and imports 0.4 MiB of codec for that.
        name: Any = host.encode() if host.isascii() else host
        try:
            return super().getaddrinfo(name, *args, **options)
        except RuntimeError:
            # pika asks in a thread, and there is none to be had: Python 3.12 starts none at the end of a program.
            return self._resolve(name, *args, **options)

    def _resolve(
        self,
        host: Any,
        port: int,
        on_done: Callable[[Any], None],
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> nbio_interface.AbstractIOReference:
        try:
            found: Any = socket.getaddrinfo(host, port, family, socktype, proto, flags)
        except OSError as error:
            found = error
        return self._tell(on_done, found)

    def _tell(self, on_done: Callable[[Any], None], outcome: object) -> nbio_interface.AbstractIOReference:
        task = _Telling(on_done, outcome)
        self.add_callback_threadsafe(task.tell)
        return task

    def create_streaming_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        on_done: Callable[[Any], None],
        ssl_context: Any = None,
        server_hostname: Any = None,
    ) -> nbio_interface.AbstractIOReference:
        try:
            return super().create_streaming_connection(protocol_factory, sock, on_done, ssl_context, server_hostname)
        except ValueError as error:
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            sock.close()
            return self._tell(on_done, ConnectionResetError(cause.errno, cause.strerror))


class _Telling(nbio_interface.AbstractIOReference):
    def __init__(self, on_done: Callable[[Any], None], outcome: object) -> None:
        self._on_done: Callable[[Any], None] | None = on_done
        self._outcome = outcome

    def tell(self) -> None:
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._outcome)

    def cancel(self) -> bool:
        was_waiting, self._on_done = self._on_done is not None, None
        return was_waiting
