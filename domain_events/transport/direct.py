"""A pika connection with short ways for what it does most: reading deliveries and confirms, and writing at once."""

from __future__ import annotations

import logging
from typing import Any

from pika import exceptions
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from domain_events.transport.confirms import Confirms
from domain_events.transport.deliveries import Deliveries
from domain_events.transport.tolerance import TolerantConnection

logger = logging.getLogger(__name__)

LARGEST_READ = 64 * 1024
"""Bytes. pika reads 4096 at a time, until nothing is left."""


class DirectConnection(TolerantConnection):
    """Does what pika does, with fewer calls of Python and of the system; see `deliveries`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.deliveries = Deliveries()
        self.confirms = Confirms()
        self._plain: Any = None
        """The transport when it writes to the socket what it is given, as it is: without TLS."""
        super().__init__(*args, **options)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = LARGEST_READ
        if self._is_plain(transport):
            # Once for each time that the socket is readable: the poller tells again if something is left. With TLS it
            # would not, for that may lie in the TLS library already.
            transport._MAX_CONSUME_BYTES = 1
            self._plain = transport
        super()._proto_connection_made(transport)  # type: ignore[misc]

    @staticmethod
    def _is_plain(transport: object) -> bool:
        return type(transport) is _AsyncPlaintextTransport

    # Reading by another thread than the loop's; to be called by whoever holds the turn

    def lend(self) -> int | None:
        """The descriptor of the socket, which the loop does not look at any more. None: it can't be had."""
        transport = self._plain
        if transport is None or transport._state != transport._STATE_ACTIVE:
            return None
        descriptor: int = transport._sock.fileno()
        transport._nbio.remove_reader(descriptor)
        return descriptor

    def take_back(self) -> None:
        """The loop looks at the socket again."""
        transport = self._plain
        if transport is not None and transport._state == transport._STATE_ACTIVE:
            transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)

    def read(self) -> bool:
        """What the socket holds. False: that was its end, and the loop does what is to be done about it."""
        transport = self._plain
        transport._on_socket_readable()
        return bool(transport._state == transport._STATE_ACTIVE)

    def _on_data_available(self, data_in: bytes) -> None:
        try:
            self._take(self._frame_buffer + data_in if self._frame_buffer else data_in)
        except exceptions.AMQPError:
            raise
        except Exception:
            # pika takes it for the end of the connection, and only that would be seen: as an outage of the broker.
            logger.exception("an error of this library costs the connection")
            raise

    def _take(self, read: bytes) -> None:
        while read:
            # A connection either consumes or publishes.
            cut, is_for_pika = (self.confirms if self.confirms.are_expected else self.deliveries).cut(read)
            self.bytes_received += cut  # type: ignore[attr-defined]
            self._frame_buffer = read[cut:] if cut else read
            if not is_for_pika:
                return
            consumed, frame = self._read_frame()
            if not frame:
                return
            self._trim_frame_buffer(consumed)  # type: ignore[attr-defined]
            self._process_frame(frame)  # type: ignore[attr-defined]
            read = self._frame_buffer

    def _adapter_emit_data(self, data: bytes) -> None:
        """pika would ask the poller first whether the socket takes something, which it nearly always does."""
        transport = self._plain
        if transport is None or transport._tx_buffers or transport._state != transport._STATE_ACTIVE:
            super()._adapter_emit_data(data)  # type: ignore[misc]
            return
        try:
            sent = transport._sock.send(data)
        except OSError:
            sent = 0  # it is full, or gone: pika finds out, and tells whom it concerns when nobody is in the middle
        if sent < len(data):
            super()._adapter_emit_data(data[sent:])  # type: ignore[misc]
