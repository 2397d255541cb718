"""Finds a node that answers; a silent one holds up the others for a moment only."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from domain_events.errors import BrokerRefused, ConfigurationError, ConnectionFailed, SendError
from domain_events.jitter import fraction
from domain_events.settings import Broker
from domain_events.transport.direct import DirectConnection
from domain_events.transport.io_thread import IOThread
from domain_events.transport.problems import connection_problem

HEAD_START = 3.0
"""Seconds that a node has for itself before the next one is tried besides. A login takes milliseconds next door and
less than a second around the world; a node that is paused, or behind a cut line, takes TCP connections and says
nothing, and would hold up the others for its whole `connection_timeout`."""

Dial: TypeAlias = Callable[[Broker], DirectConnection]
"""Begins a login; raises ConfigurationError when it cannot even begin."""

_OF_PIKAS_CLOCK = re.compile("Timeout while|attempt timed out")


@dataclass(frozen=True, slots=True)
class _Login:
    broker: Broker
    began: float


class Reaching:
    """Tries each node once, in random order. Belongs into the I/O thread.

    `start()` ends in `reached(connection, broker)` or `failed(error)`, unless `cancel()` is called. Pika's callbacks
    lead to `opened` and `not_opened`.
    """

    def __init__(
        self,
        io: IOThread,
        brokers: Sequence[Broker],
        *,
        dial: Dial,
        reached: Callable[[DirectConnection, Broker], None],
        failed: Callable[[SendError], None],
    ) -> None:
        self._io = io
        self._brokers = brokers
        self._dial = dial
        self._reached = reached
        self._failed = failed
        self._left: list[Broker] = []
        self._logins: dict[DirectConnection, _Login] = {}
        self._given_up: set[DirectConnection] = set()  # until pika has told their end
        self._problems: list[SendError] = []
        self._next: object | None = None
        self._ended: Callable[[], None] | None = None

    def start(self) -> None:
        try:
            nodes = list(iter(self._brokers))  # may read a file: once
        except ConfigurationError as error:
            self._failed(BrokerRefused(str(error)))
            return
        self._left = sorted(nodes, key=lambda _node: fraction())
        self._problems = []
        self._try_next()

    def cancel(self, ended: Callable[[], None]) -> None:
        """Give up; `ended` is called once when nothing is left of it."""
        self._ended = ended
        self._give_up_all()
        self._say_ended()

    def sockets(self) -> list[socket.socket]:
        """Those of logins that are under way."""
        found = map(socket_of, [*self._logins, *self._given_up])
        return [each for each in found if each is not None]

    def opened(self, connection: DirectConnection) -> None:
        login = self._logins.pop(connection, None)
        if login is None:  # another one was quicker
            self._given_up.discard(connection)
            connection.close()
            self._say_ended()
            return
        self._give_up_all()
        self._reached(connection, login.broker)

    def not_opened(self, connection: DirectConnection, error: BaseException) -> None:
        login = self._logins.pop(connection, None)
        if login is None:
            self._given_up.discard(connection)
            self._say_ended()
            return
        problem = connection_problem(error, login.broker)
        if type(problem) is ConnectionFailed and _OF_PIKAS_CLOCK.search(str(problem)):
            waited = time.monotonic() - login.began
            problem = ConnectionFailed(f"{login.broker}: no login within {waited:.1f} s")
        self._note(problem)

    def _try_next(self) -> None:
        self._next = None
        broker = self._left.pop()
        try:
            connection = self._dial(broker)
        except ConfigurationError as error:
            self._note(BrokerRefused(str(error)))
            return
        self._logins[connection] = _Login(broker, time.monotonic())
        if self._left:
            self._next = self._io.later(HEAD_START, self._try_next)

    def _note(self, problem: SendError) -> None:
        self._problems.append(problem)
        if self._left:
            self._forget_timer()
            self._try_next()
        elif not self._logins:
            self._failed(together(self._problems))

    def _give_up_all(self) -> None:
        self._forget_timer()
        self._left = []
        logins, self._logins = self._logins, {}
        self._given_up.update(logins)
        for connection in logins:
            hang_up(connection)

    def _forget_timer(self) -> None:
        if self._next is not None:
            self._io.cancel(self._next)
            self._next = None

    def _say_ended(self) -> None:
        if self._ended is not None and not self._given_up:
            ended, self._ended = self._ended, None
            ended()


def together(problems: Sequence[SendError]) -> SendError:
    """What several nodes said. Refused is only what all have refused: a node that has left its cluster, or is being set
    up, knows no virtual host and no user; those that do not answer may."""
    hopeful = [problem for problem in problems if not isinstance(problem, BrokerRefused)]
    said = {str(problem): problem for problem in hopeful or problems}
    if hopeful:
        said |= {str(problem): problem for problem in problems if isinstance(problem, BrokerRefused)}
    kinds = {type(problem) for problem in hopeful or problems}
    if len(said) == 1:
        return problems[-1]
    common = BrokerRefused if not hopeful else ConnectionFailed
    return (kinds.pop() if len(kinds) == 1 else common)("; ".join(said))


def first_answer(login: float) -> float:
    """Of the seconds for a whole login those for the TCP connection: a name may have several addresses, and one of them
    be dead."""
    return min(login, max(HEAD_START, login / 3))


def hang_up(connection: DirectConnection) -> None:
    """Ends a connection in any state. pika trips over its own close() in the middle of a login, and over abort()."""
    if connection.is_closing or connection.is_closed:
        return
    if connection.is_open or socket_of(connection) is None:
        connection.close()
    else:
        cut(connection)


def cut(connection: DirectConnection | None) -> None:
    """As the network would cut it: pika hears of it, and tells its callbacks."""
    sock = socket_of(connection)
    if sock is not None:
        with contextlib.suppress(OSError):
            # Not that of an SSLSocket: it would go on in the clear, and pika take what is still encrypted for AMQP.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def socket_of(connection: DirectConnection | None) -> socket.socket | None:
    """None while there is no TCP connection (yet, or any more)."""
    sock = getattr(getattr(connection, "_transport", None), "_sock", None)
    return sock if isinstance(sock, socket.socket) else None
