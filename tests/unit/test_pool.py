"""A pool of threads for one receiver: as many at a time, each with its name, and how they end."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from domain_events import DomainEvent
from domain_events.pool import Pool
from domain_events.surroundings import Surroundings
from domain_events.transport.settlement import Ack, Copy
from tests.deliveries import Desk, delivery, handling, runner
from tests.waiting import wait_until


def test_all_threads_work_at_the_same_time() -> None:
    barrier, names = threading.Barrier(8), set[str]()

    def handle(event: DomainEvent) -> None:
        barrier.wait(20)  # opens for eight
        names.add(threading.current_thread().name)

    desk, registration = Desk(), handling(handle, threads=8)
    pool = Pool(registration)
    pool.start(runner(desk))
    for n in range(16):
        pool.lane.put(delivery(registration, n))
    assert desk.wait(16) == [Ack()] * 16
    assert names == {f"de-handler-{n}" for n in range(1, 9)}
    pool.lane.end()
    pool.join()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
def test_a_thread_lives_on_whatever_a_handler_raises(error: BaseException) -> None:
    def handle(event: DomainEvent) -> None:
        raise error

    desk, registration = Desk(), handling(handle, threads=2)
    pool = Pool(registration)
    pool.start(runner(desk))
    for n in range(10):
        pool.lane.put(delivery(registration, n))
    assert all(isinstance(settlement, Copy) for settlement in desk.wait(10))
    pool.lane.end()
    pool.join()
    assert desk.failures == []


def test_each_thread_says_when_it_ends() -> None:
    ended: list[str] = []
    none: Any = None
    surroundings = Surroundings(
        plain=none, asynchronous=none, thread_ends=lambda: ended.append(threading.current_thread().name)
    )
    pool = Pool(handling(print, threads=3))
    pool.start(runner(Desk(), surroundings=[surroundings]))
    pool.lane.end()
    pool.join()
    assert sorted(ended) == ["de-handler-1", "de-handler-2", "de-handler-3"]


def test_an_error_of_ours_ends_the_consumer_and_not_in_silence() -> None:
    class Broken(Desk):
        def settle(self, delivery: Any, settlement: Any) -> None:
            raise RuntimeError("ours")

    desk, registration = Broken(), handling(print, threads=2)
    pool = Pool(registration)
    pool.start(runner(desk))
    pool.lane.put(delivery(registration))
    wait_until(lambda: desk.failures, what="the failure told")
    pool.lane.end()
    pool.join()
    assert [str(error) for error in desk.failures] == ["ours"]


@pytest.mark.parametrize(("how", "code"), [("return", 1), ("exit", 3), ("raise", 1)])
def test_a_process_that_a_handler_in_a_thread_forked_ends_when_it_comes_back(how: str, code: int) -> None:
    codes: list[int] = []
    read, write = os.pipe()  # the child's standard error, not the test's

    def handle(event: DomainEvent) -> None:
        child = os.fork()
        if not child:
            os.dup2(write, 2)
            if how == "exit":
                raise SystemExit(3)
            if how == "raise":
                raise ValueError
            return
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    desk, registration = Desk(), handling(handle, threads=2)
    pool = Pool(registration)
    pool.start(runner(desk))
    for n in range(4):
        pool.lane.put(delivery(registration, n))
    assert desk.wait(4) == [Ack()] * 4
    assert codes == [code] * 4
    pool.lane.end()
    pool.join()
    os.close(read)
    os.close(write)
