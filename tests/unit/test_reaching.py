"""Which node is tried when, and what is heard in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.connection import Connection

from domain_events.errors import BrokerRefused, ConfigurationError, ConnectionFailed, SendError
from domain_events.settings import Broker
from domain_events.transport.reaching import HEAD_START, Reaching


class Login:
    """A connection of pika's that is being made."""

    is_closing = is_closed = is_open = False

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Nodes:
    """An I/O thread, a dial and an owner that write down what happens."""

    def __init__(self, n: int) -> None:
        self.brokers = [
            Broker(host=f"node{number}", port=1, virtual_host="/", user="u", password="p") for number in range(n)
        ]
        self.logins: list[Login] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.reached: list[Broker] = []
        self.failed: list[SendError] = []
        self.ended = 0
        self.unusable: set[str] = set()
        io: Any = self
        self.reaching = Reaching(
            io,
            self.brokers,
            dial=self._dial,
            reached=lambda _connection, broker: self.reached.append(broker),
            failed=self.failed.append,
        )
        if n:
            self.reaching.start()

    def later(self, delay: float, function: Callable[[], None]) -> object:
        self.timers.append((delay, function))
        return self.timers[-1]

    def cancel(self, handle: Any) -> None:
        self.timers.remove(handle)

    def wait(self) -> None:
        [(delay, function)] = self.timers
        assert delay == HEAD_START
        self.timers.clear()
        function()

    def open(self, n: int) -> None:
        login: Any = self.logins[n]
        login.is_open = True
        self.reaching.opened(login)

    def fail(self, n: int) -> None:
        login: Any = self.logins[n]
        self.reaching.not_opened(login, ConnectionRefusedError(111, "Connection refused"))

    def end(self) -> None:
        self.ended += 1

    def _dial(self, broker: Broker) -> Connection:
        if broker.host in self.unusable:
            raise ConfigurationError("no such file")
        login: Any = Login(broker)
        self.logins.append(login)
        connection: Connection = login
        return connection


def test_a_node_that_answers_is_the_only_one_that_is_tried() -> None:
    nodes = Nodes(3)
    nodes.open(0)
    assert nodes.reached == [nodes.logins[0].broker]
    assert len(nodes.logins) == 1
    assert nodes.timers == []


def test_a_node_that_refuses_is_followed_by_the_next_at_once() -> None:
    nodes = Nodes(3)
    nodes.fail(0)
    nodes.fail(1)
    nodes.open(2)
    assert nodes.reached == [nodes.logins[2].broker]
    assert {login.broker.host for login in nodes.logins} == {"node0", "node1", "node2"}


def test_a_silent_node_has_a_head_start_only_and_the_first_to_answer_wins() -> None:
    nodes = Nodes(3)
    nodes.wait()
    nodes.wait()
    assert nodes.timers == []
    nodes.open(1)
    assert nodes.reached == [nodes.logins[1].broker]
    assert [login.closed for login in nodes.logins] == [True, False, True]


def test_the_first_may_still_be_the_one_that_answers() -> None:
    nodes = Nodes(2)
    nodes.wait()
    nodes.open(0)
    assert nodes.reached == [nodes.logins[0].broker]
    assert nodes.logins[1].closed


def test_a_login_that_comes_too_late_is_ended() -> None:
    nodes = Nodes(2)
    nodes.wait()
    nodes.open(1)
    nodes.logins[0].closed = False
    nodes.open(0)
    assert nodes.logins[0].closed
    assert len(nodes.reached) == 1


def test_when_all_have_failed_it_is_said_once_with_what_each_of_them_said() -> None:
    nodes = Nodes(2)
    nodes.wait()
    nodes.fail(0)
    assert nodes.failed == []
    nodes.fail(1)
    [problem] = nodes.failed
    assert isinstance(problem, ConnectionFailed)
    assert "node0" in str(problem)
    assert "node1" in str(problem)


def test_a_node_that_cannot_even_be_dialled_is_refused_and_the_others_are_tried() -> None:
    nodes = Nodes(0)
    nodes.brokers += [Broker(host=name, port=1, virtual_host="/", user="u", password="p") for name in ("good", "bad")]
    nodes.unusable = {"bad"}
    nodes.reaching.start()
    nodes.open(0)
    assert [broker.host for broker in nodes.reached] == ["good"]
    nodes.unusable = {"good", "bad"}
    nodes.reaching.start()
    [problem] = nodes.failed
    assert isinstance(problem, BrokerRefused)


def test_it_can_be_given_up_and_says_when_nothing_is_left_of_it() -> None:
    nodes = Nodes(3)
    nodes.wait()
    nodes.reaching.cancel(nodes.end)
    assert (nodes.ended, nodes.timers) == (0, [])
    nodes.fail(0)
    assert nodes.ended == 0
    nodes.fail(1)
    assert nodes.ended == 1
    assert (nodes.reached, nodes.failed) == ([], [])


def test_to_give_up_what_has_not_begun_ends_at_once() -> None:
    nodes = Nodes(1)
    nodes.open(0)
    nodes.reaching.cancel(nodes.end)
    assert nodes.ended == 1
