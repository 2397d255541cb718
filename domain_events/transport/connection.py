"""One AMQP connection: finds a node that answers, and says when it is gone."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

import pika
from pika.connection import Connection as AnyConnection

from domain_events.errors import BrokerRefused, ConfigurationError, ConnectionFailed, SendError
from domain_events.settings import Broker
from domain_events.transport.io_thread import IOThread
from domain_events.transport.problems import connection_problem
from domain_events.transport.tolerance import TolerantConnection
from domain_events.version import __version__

# Every error of pika is translated and reported by us, once and with the remedy.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

# socket.getaddrinfo() imports this codec at its first call. A process that is forked in that moment has its import
# lock for ever, held by a thread that it does not have, and could never connect.
"localhost".encode("idna")

CLOSE_TIMEOUT = 3.0
"""Seconds to wait for the broker's goodbye."""


class Connection:
    """Belongs into the I/O thread.

    `open()` ends in `opened(connection)` or `lost(error)`; after `opened` comes exactly one `lost`, unless
    `close()` was called. What to do after `lost` is up to the owner.
    """

    def __init__(
        self,
        io: IOThread,
        brokers: Sequence[Broker],
        *,
        name: str,
        opened: Callable[[AnyConnection], None],
        lost: Callable[[SendError], None],
        unblocked: Callable[[], None] = lambda: None,
    ) -> None:
        self._io = io
        self._brokers = brokers
        self._name = name
        self._opened = opened
        self._lost = lost
        self._unblocked = unblocked
        self._left: list[Broker] = []
        self._connection: pika.SelectConnection | None = None
        self._closed: Callable[[], None] | None = None
        self._problems: list[SendError] = []
        self.blocked: str | None = None
        """Why the broker takes no events at the moment; None when it does."""

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open

    def open(self) -> None:
        """Try the nodes once each, in random order."""
        self._left = random.sample(self._brokers, len(self._brokers))
        self._problems = []
        self._try_next()

    def close(self, closed: Callable[[], None]) -> None:
        """Say goodbye; `closed` is called when that is done, or could not be done in time."""
        self._closed = closed
        connection = self._connection
        if connection is None or connection.is_closed:
            self._finish()
            return
        self._io.later(CLOSE_TIMEOUT, self._finish)
        if connection.is_open or _socket_of(connection) is None:
            connection.close()
        else:
            # pika 1.4 trips over its own close() in the middle of a login.
            self.drop()

    def drop(self) -> None:
        """Cut the connection without a goodbye; `lost` follows if it was open.

        As the network would cut it: pika's own abort() fails when nobody has asked it to close before.
        """
        sock = _socket_of(self._connection)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """In a forked child: close our copy of the socket, without a word to the broker.

        The connection belongs to the parent. A goodbye, or a TLS shutdown, would end it there.
        """
        connection, self._connection = self._connection, None
        sock = _socket_of(connection)
        if sock is not None:
            sock.close()

    def _finish(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            self.drop()
            self._connection = None
            closed()

    def _try_next(self) -> None:
        broker = self._left.pop()
        try:
            parameters = connection_parameters(broker, self._name)
        except ConfigurationError as error:
            self._failed(broker, BrokerRefused(str(error)))
            return
        self._connection = TolerantConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=partial(self._on_open_error, broker),
            on_close_callback=partial(self._on_close, broker),
            custom_ioloop=self._io.loop,
        )

    def _on_open(self, connection: AnyConnection) -> None:
        if connection is not self._connection:
            return
        self.blocked = None
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._opened(connection)

    def _on_open_error(self, broker: Broker, connection: AnyConnection, error: BaseException | str) -> None:
        if connection is not self._connection and self._connection is not None:
            return
        problem = error if isinstance(error, BaseException) else ConnectionFailed(error)
        self._failed(broker, connection_problem(problem, broker))

    def _failed(self, broker: Broker, problem: SendError) -> None:
        self._connection = None
        self._problems.append(problem)
        if self._closed is not None:
            self._finish()
        elif self._left:
            self._try_next()
        else:
            refused = [problem for problem in self._problems if isinstance(problem, BrokerRefused)]
            self._lost((refused or self._problems)[-1])

    def _on_close(self, broker: Broker, connection: AnyConnection, error: BaseException) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self.blocked = None
        if self._closed is not None:
            self._finish()
        else:
            problem = connection_problem(error, broker)
            problem.__cause__ = error
            self._lost(problem)

    def _on_blocked(self, _connection: AnyConnection, frame: object) -> None:
        reason = getattr(getattr(frame, "method", None), "reason", "") or "no reason given"
        self.blocked = f"the broker takes no events at the moment: {reason}"

    def _on_unblocked(self, _connection: AnyConnection, _frame: object) -> None:
        self.blocked = None
        self._unblocked()


def _socket_of(connection: object) -> socket.socket | None:
    """None while there is no TCP connection (yet, or any more)."""
    sock = getattr(getattr(connection, "_transport", None), "_sock", None)
    return sock if isinstance(sock, socket.socket) else None


def connection_parameters(broker: Broker, name: str) -> pika.ConnectionParameters:
    """What pika needs to know. Raises ConfigurationError when the TLS files cannot be read."""
    return pika.ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.virtual_host,
        credentials=pika.PlainCredentials(broker.user, broker.password),
        heartbeat=broker.heartbeat,
        connection_attempts=1,
        socket_timeout=broker.connection_timeout,
        stack_timeout=broker.connection_timeout,
        ssl_options=_ssl_options(broker),
        client_properties={
            "connection_name": f"{name} {socket.gethostname()}",
            "product": "domain-events",
            "version": __version__,
        },
        tcp_options={"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3},
    )


def _ssl_options(broker: Broker) -> pika.SSLOptions | None:
    if not broker.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=broker.cafile)
        if not broker.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if broker.certfile:
            context.load_cert_chain(broker.certfile, broker.keyfile)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(file for file in (broker.cafile, broker.certfile, broker.keyfile) if file)
        raise ConfigurationError(f"{broker}: cannot use the TLS files {files}: {error}") from error
    return pika.SSLOptions(context, broker.server_name or broker.host)
