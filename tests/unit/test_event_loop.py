"""The event loop of a process: how many coroutines at a time, what they may do to it, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from domain_events import DomainEvent
from domain_events.event_loop import EventLoop, TaskLane
from domain_events.transport.settlement import Ack, Copy
from tests.deliveries import Desk, delivery, handling, runner
from tests.waiting import wait_until

Begin = Callable[..., TaskLane]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def begin(desk: Desk) -> Iterator[Begin]:
    """Starts a loop for one handler and puts events 0, 1, ... into its lane. At the end it must end by itself."""
    loops: list[tuple[EventLoop, TaskLane]] = []

    def call(handler: Any, n: int = 0, **given: Any) -> TaskLane:
        registration = handling(handler, **given)
        loop = EventLoop()
        lane = loop.add_lane(registration)
        loops.append((loop, lane))
        loop.start(runner(desk))
        for data in range(n):
            lane.put(delivery(registration, data))
        return lane

    yield call
    for loop, lane in loops:
        lane.end()
        lane.end()
        loop.join()
    assert desk.failures == []
    assert desk.in_hand == []


class Counts:
    """An async handler that waits to be let go, and counts how many events are in it."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.go_on = threading.Event()

    async def __call__(self, event: DomainEvent) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        while not self.go_on.is_set():
            await asyncio.sleep(0.001)
        self.now -= 1


def test_as_many_events_are_in_hand_as_asked_for_and_never_more(desk: Desk, begin: Begin) -> None:
    handler = Counts()
    lane = begin(handler, 20, concurrency=7)
    wait_until(lambda: handler.now == 7, what="seven at a time")
    assert len(desk.in_hand) == 7
    assert lane
    handler.go_on.set()
    assert desk.wait(20) == [Ack()] * 20
    assert handler.most == 7
    assert not lane


def test_all_run_in_one_thread_that_is_not_the_main_one(desk: Desk, begin: Begin) -> None:
    threads: set[str] = set()

    async def handle(event: DomainEvent) -> None:
        threads.add(threading.current_thread().name)

    begin(handle, 5)
    begin(handle, 5)
    desk.wait(10)
    assert threads == {"de-asyncio"}


def test_what_is_taken_back_is_not_handled(desk: Desk, begin: Begin) -> None:
    handler = Counts()
    lane = begin(handler, 10, concurrency=2)
    wait_until(lambda: handler.now == 2, what="two at a time")
    back = lane.take_back()
    assert len(back) == 8
    assert lane.take_back() == []
    for each in back[:3]:
        lane.put(each)
    handler.go_on.set()
    desk.wait(5)


def test_each_event_is_had_once_while_some_are_taken_back(desk: Desk, begin: Begin) -> None:
    async def handle(event: DomainEvent) -> None:
        await asyncio.sleep(0)

    lane = begin(handle, concurrency=3)
    back = []
    for n in range(2000):
        lane.put(delivery(handling(handle), n))
        if n % 37 == 0:
            back += lane.take_back()
    desk.wait(2000 - len(back))
    had = [*back, *(each for each, _ in desk.settled)]
    assert len({id(each) for each in had}) == len(had) == 2000


def test_each_event_has_a_context_of_its_own(desk: Desk, begin: Begin) -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)
    seen: list[Any] = []

    async def handle(event: DomainEvent) -> None:
        seen.append(variable.get())
        variable.set(event.data)
        await asyncio.sleep(0.001)
        seen.append(variable.get())

    begin(handle, 3, concurrency=1)
    desk.wait(3)
    assert seen == [None, 0, None, 1, None, 2]


# What handlers may do to it


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), ValueError("x")])
def test_the_loop_lives_on_whatever_a_handler_raises(desk: Desk, begin: Begin, error: BaseException) -> None:
    async def handle(event: DomainEvent) -> None:
        await asyncio.sleep(0)
        if event.data == 0:
            raise error

    begin(handle, 3)
    first, *others = sorted(desk.wait(3), key=lambda settlement: isinstance(settlement, Ack))
    assert isinstance(first, Copy)
    assert others == [Ack()] * 2


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
def test_the_loop_lives_on_whatever_a_task_raises_that_was_left_behind(
    desk: Desk, begin: Begin, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[asyncio.Task[None]] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    async def handle(event: DomainEvent) -> None:
        kept.append(asyncio.create_task(fail()))
        await asyncio.sleep(0.01)

    begin(handle, 3)
    assert desk.wait(3) == [Ack()] * 3
    if not isinstance(error, Exception):
        assert f"a task that a handler left behind raised {type(error).__name__}" in caplog.text
    for task in kept:
        task.exception()  # asked for, as asyncio wants it


def test_the_loop_runs_on_when_a_handler_stops_it(desk: Desk, begin: Begin) -> None:
    async def handle(event: DomainEvent) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.001)

    begin(handle, 5, concurrency=2)
    assert desk.wait(5) == [Ack()] * 5


def test_an_event_whose_task_is_cancelled_before_it_begins_is_handled_all_the_same(desk: Desk, begin: Begin) -> None:
    async def handle(event: DomainEvent) -> None:
        if event.data == 0:
            for n in (1, 2):
                lane.put(delivery(registration, n))
            await asyncio.sleep(0)  # they have tasks now, which have not begun
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    registration = handling(handle)
    lane = begin(handle)
    lane.put(delivery(registration, 0))
    assert desk.wait(3) == [Ack()] * 3


def test_a_handler_that_blocks_the_loop_holds_up_its_own_kind_only(desk: Desk, begin: Begin) -> None:
    go_on, other = threading.Event(), threading.Event()

    async def block(event: DomainEvent) -> None:
        go_on.wait(30)

    async def handle(event: DomainEvent) -> None:
        other.set()

    begin(block, 2)
    wait_until(lambda: len(desk.in_hand) == 1, what="the first in hand")
    begin(handle, 1)  # a loop of its own, as of another process
    assert other.wait(20)
    wait_until(lambda: len(desk.in_hand) == 1, what="the other one settled")
    go_on.set()
    desk.wait(3)


# The end


def test_at_the_end_tasks_and_generators_that_were_left_behind_are_ended(
    desk: Desk, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("task")

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    kept: list[Any] = []

    async def handle(event: DomainEvent) -> None:
        generator = generate()
        kept.extend((asyncio.create_task(leftover()), generator, asyncio.get_running_loop()))
        await anext(generator)

    lane = begin(handle, 1)
    desk.wait(1)
    assert ended == []
    lane.end()
    wait_until(lambda: kept[2].is_closed(), what="the loop closed")
    assert sorted(ended) == ["generator", "task"]
    assert kept[0].cancelled()
    assert caplog.messages == []


@pytest.mark.parametrize("error", [ValueError("in the end"), SystemExit(3)])
def test_a_task_that_fails_when_it_is_cancelled_at_the_end_is_logged(
    desk: Desk, begin: Begin, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise error

    async def handle(event: DomainEvent) -> None:
        kept.extend((asyncio.create_task(leftover()), asyncio.get_running_loop()))
        await asyncio.sleep(0)

    lane = begin(handle, 1)
    desk.wait(1)
    lane.end()
    wait_until(lambda: kept[1].is_closed(), what="the loop closed")
    assert "a task that a handler left behind" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_what_waits_in_the_lane_is_handled_before_the_end(desk: Desk, begin: Begin) -> None:
    handler = Counts()
    lane = begin(handler, 5, concurrency=1)
    lane.end()
    handler.go_on.set()
    assert desk.wait(5) == [Ack()] * 5


def test_an_error_of_ours_ends_the_consumer_and_not_in_silence() -> None:
    class Broken(Desk):
        def settle(self, delivery: Any, settlement: Any) -> None:
            raise RuntimeError("ours")

    desk = Broken()

    async def handle(event: DomainEvent) -> None: ...

    registration = handling(handle)
    loop = EventLoop()
    lane = loop.add_lane(registration)
    loop.start(runner(desk))
    lane.put(delivery(registration))
    wait_until(lambda: desk.failures, what="the failure told")
    lane.end()
    loop.join()
    assert [str(error) for error in desk.failures] == ["ours"]


@pytest.mark.parametrize(("how", "code"), [("return", 1), ("exit", 3), ("raise", 1), ("await", 1)])
def test_a_process_that_an_async_handler_forked_ends_when_it_comes_back(
    desk: Desk, begin: Begin, how: str, code: int
) -> None:
    codes: list[int] = []
    read, write = os.pipe()  # the child's standard error, not the test's

    async def handle(event: DomainEvent) -> None:
        child = os.fork()
        if not child:
            os.dup2(write, 2)
            if how == "exit":
                raise SystemExit(3)
            if how == "raise":
                raise ValueError
            if how == "await":
                await asyncio.sleep(0.01)
            return
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    begin(handle, 2)
    assert desk.wait(2) == [Ack()] * 2
    assert codes == [code] * 2
    os.close(read)
    os.close(write)
