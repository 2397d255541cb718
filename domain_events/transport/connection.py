"""One AMQP connection: finds a node that answers, and says when it is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from domain_events.errors import ConnectionFailed, SendError
from domain_events.settings import Broker
from domain_events.transport.direct import DirectConnection
from domain_events.transport.io_services import IOServices
from domain_events.transport.io_thread import IOThread
from domain_events.transport.parameters import connection_parameters
from domain_events.transport.problems import connection_problem
from domain_events.transport.reaching import Reaching, cut, hang_up, socket_of

# Every error of pika is translated and reported by us, once and with the remedy.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

CLOSE_TIMEOUT = 3.0
"""Seconds to wait for the broker's goodbye."""

LOOKS = 5
"""How often it is looked, while nothing comes, before a connection is given up."""


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
        opened: Callable[[DirectConnection], None],
        lost: Callable[[SendError], None],
        unblocked: Callable[[], None] = lambda: None,
    ) -> None:
        self._io = io
        self._name = name
        self._opened = opened
        self._lost = lost
        self._unblocked = unblocked
        self._reaching = Reaching(io, brokers, dial=self._dial, reached=self._on_reached, failed=lost)
        self._connection: DirectConnection | None = None
        self._closed: Callable[[], None] | None = None
        self._silence: ConnectionFailed | None = None
        self.blocked: str | None = None
        """Why the broker takes no events at the moment; None when it does."""

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open

    def open(self) -> None:
        """Try the nodes once each, in random order."""
        self._reaching.start()

    def close(self, closed: Callable[[], None]) -> None:
        """Say goodbye; `closed` is called when that is done, or could not be done in time."""
        self._closed = closed
        self._io.later(CLOSE_TIMEOUT, self._finish)
        if self._connection is None:
            self._reaching.cancel(self._finish)
        elif self._connection.is_closed:
            self._finish()
        else:
            hang_up(self._connection)

    def drop(self) -> None:
        """Cut the connection without a goodbye; `lost` follows if it was open."""
        cut(self._connection)

    def forget(self) -> None:
        """In a forked child: close our copy of the socket, without a word to the broker.

        The connection belongs to the parent. A goodbye, or a TLS shutdown, would end it there.
        """
        connection, self._connection = self._connection, None
        sockets = self._reaching.sockets()
        if (sock := socket_of(connection)) is not None:
            sockets.append(sock)
        for sock in sockets:
            sock.close()

    def _finish(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            self.drop()
            self._connection = None
            closed()

    def _dial(self, broker: Broker) -> DirectConnection:
        return DirectConnection(
            connection_parameters(broker, self._name),
            on_open_callback=self._reaching.opened,
            on_open_error_callback=self._on_open_error,
            on_close_callback=partial(self._on_close, broker),
            custom_ioloop=IOServices(self._io.loop),  # type: ignore[arg-type]  # of pika itself
        )

    def _on_open_error(self, connection: DirectConnection, error: BaseException | str) -> None:
        problem = error if isinstance(error, BaseException) else ConnectionFailed(error)
        self._reaching.not_opened(connection, problem)

    def _on_reached(self, connection: DirectConnection, broker: Broker) -> None:
        self._connection = connection
        self._silence = None
        self.blocked = None
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        heartbeat = connection.params.heartbeat
        if isinstance(heartbeat, int) and heartbeat > 0:
            self._watch(connection, broker, longest_silence(heartbeat), -1, 0)
        self._opened(connection)

    def _on_close(self, broker: Broker, connection: DirectConnection, error: BaseException) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self.blocked = None
        if self._closed is not None:
            self._finish()
        else:
            problem = self._silence or connection_problem(error, broker)
            problem.__cause__ = error
            self._lost(problem)

    def _watch(self, connection: DirectConnection, broker: Broker, longest: float, heard: int, silent: int) -> None:
        """Pika looks only when a heartbeat and 5 s are over, so it takes up to twice that to see a line that is dead.

        Looks are counted, not seconds: what came while this process was stopped is read before the next look.
        """
        if connection is not self._connection:
            return
        received: int = connection.bytes_received  # type: ignore[attr-defined]
        silent = silent + 1 if received == heard else 0
        if silent >= LOOKS:
            self._silence = ConnectionFailed(f"{broker} missed its heartbeats: nothing came for {longest:g} s")
            self.drop()
            return
        self._io.later(longest / LOOKS, partial(self._watch, connection, broker, longest, received, silent))

    def _on_blocked(self, _connection: DirectConnection, frame: object) -> None:
        reason = getattr(getattr(frame, "method", None), "reason", "") or "no reason given"
        self.blocked = f"the broker takes no events at the moment: {reason}"

    def _on_unblocked(self, _connection: DirectConnection, _frame: object) -> None:
        self.blocked = None
        self._unblocked()


def longest_silence(heartbeat: int) -> float:
    """Seconds without a byte after which the broker is gone: it sends one each half `heartbeat`, and the line may be
    late."""
    return min(heartbeat + 5.0, heartbeat * 2.0)
