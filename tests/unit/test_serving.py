"""Who reads the connection: the thread that handles events while it can, else the I/O thread."""

from __future__ import annotations

import select
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from domain_events.transport.io_services import IOServices
from domain_events.transport.io_thread import IOThread
from domain_events.transport.serving import Serving
from tests.waiting import wait_until


class Connection:
    """The socket of a DirectConnection; what comes is put into a lane."""

    def __init__(self, lane: deque[bytes]) -> None:
        self.peer, self.own = socket.socketpair()
        self.own.setblocking(False)
        self.lane = lane
        self.is_lent = False

    def lend(self) -> int | None:
        self.is_lent = True
        return self.own.fileno()

    def take_back(self) -> None:
        self.is_lent = False

    def read(self) -> bool:
        data = self.own.recv(100)
        if data not in (b"", b"heartbeat"):
            self.lane.append(data)
        return bool(data)

    def close(self) -> None:
        self.peer.close()
        self.own.close()


class Scene:
    def __init__(self) -> None:
        self.io = IOThread("test", print)
        self.lane: deque[bytes] = deque()
        self.connection: Any = Connection(self.lane)
        self.serving = Serving(self.io, ready=lambda: bool(self.lane))
        self.results: list[bool] = []

    def wait_in_a_thread(self) -> threading.Thread:
        thread = threading.Thread(target=lambda: self.results.append(self.serving.wait(lambda: self.connection)))
        thread.start()
        wait_until(lambda: self.serving._is_waiting or self.results)
        return thread

    def do(self, what: Any) -> None:
        with self.io.turn:
            what()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.serving.close()
    made.connection.close()
    made.io.loop.close()


def test_who_waits_reads_what_comes_and_keeps_the_connection(scene: Scene) -> None:
    thread = scene.wait_in_a_thread()
    scene.connection.peer.send(b"heartbeat")  # no event: it goes on waiting
    wait_until(lambda: scene.serving._is_used)
    assert scene.results == []
    scene.connection.peer.send(b"event")
    thread.join(60)
    assert scene.results == [True]
    assert list(scene.lane) == [b"event"]
    assert scene.connection.is_lent


def test_what_is_there_already_is_not_waited_for(scene: Scene) -> None:
    scene.lane.append(b"event")
    assert scene.serving.wait(lambda: scene.connection) is True
    assert not scene.connection.is_lent


def test_nobody_waits_for_a_connection_that_cannot_be_had(scene: Scene) -> None:
    assert scene.serving.wait(lambda: None) is False
    scene.connection.lend = lambda: None
    assert scene.serving.wait(lambda: scene.connection) is False


def test_the_end_of_the_connection_is_left_to_the_io_thread(scene: Scene) -> None:
    thread = scene.wait_in_a_thread()
    scene.connection.peer.close()
    thread.join(60)
    assert scene.results == [False]
    scene.do(scene.serving.withdraw)  # as for every connection that is lost
    assert scene.connection.is_lent, "what has ended is not looked at again"


def test_a_handler_that_takes_long_loses_the_connection_until_it_waits_again(scene: Scene) -> None:
    thread = scene.wait_in_a_thread()
    scene.connection.peer.send(b"event")
    thread.join(60)
    scene.lane.clear()
    scene.do(scene.serving.look)
    assert scene.connection.is_lent, "it has just been used"
    scene.do(scene.serving.look)
    assert not scene.connection.is_lent
    thread = scene.wait_in_a_thread()
    assert scene.connection.is_lent
    for _ in range(3):
        scene.do(scene.serving.look)
    assert scene.connection.is_lent, "whoever waits for it uses it"
    scene.connection.peer.send(b"another")
    thread.join(60)
    assert scene.results == [True, True]


def test_whoever_waits_is_told_when_it_is_taken_back(scene: Scene) -> None:
    for n in range(1, 3):
        thread = scene.wait_in_a_thread()
        scene.do(scene.serving.withdraw)
        thread.join(60)
        assert scene.results == [False] * n
        assert not scene.connection.is_lent


def test_a_bell_that_rang_for_somebody_who_was_interrupted_is_not_heard_again(scene: Scene) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def come_between() -> None:
        wait_until(lambda: scene.serving._is_waiting)
        signal.pthread_kill(waiting, signal.SIGUSR1)

    waiting, before = threading.get_ident(), signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=come_between).start()
    try:
        with pytest.raises(Interrupted):
            scene.serving.wait(lambda: scene.connection)
    finally:
        signal.signal(signal.SIGUSR1, before)
    scene.do(scene.serving.withdraw)  # the bell rings, and nobody is there
    thread = scene.wait_in_a_thread()
    # Nothing has come: who reads the connection all the same fails, and who leaves the bell as it is waits no more.
    bell = scene.serving._bell
    wait_until(lambda: not select.select([bell], [], [], 0)[0] or not thread.is_alive(), what="silence")
    scene.connection.peer.send(b"event")
    thread.join(60)
    assert (scene.results, list(scene.lane)) == ([True], [b"event"])


def test_what_comes_for_a_socket_that_was_just_taken_out_of_the_loop_ends_no_io_thread() -> None:
    crashes: list[BaseException] = []
    calls: list[str] = []
    io = IOThread("test", crashes.append)
    services = IOServices(io.loop)  # type: ignore[arg-type]  # of pika itself
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with own, peer:
        services.set_reader(own.fileno(), lambda: calls.append("read"))
        io.start()
        io.call(lambda: calls.append("started"))
        wait_until(lambda: calls)
        with io.turn:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            time.sleep(0.1)  # the I/O thread has been woken up by the RST, and waits for its turn
            services.remove_reader(own.fileno())
        io.call(lambda: calls.append("lives"))
        wait_until(lambda: "lives" in calls or crashes)
    io.stop()
    assert (calls, crashes) == (["started", "lives"], [])
