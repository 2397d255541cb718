"""The asyncio loop of a process, in a thread of its own: it handles the events of receivers whose handler is async."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from domain_events.forks import end_fork
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.showing import printable
from domain_events.transport.handover import take_all
from domain_events.transport.subscription import Delivery

logger = logging.getLogger(__name__)

LAST_WORDS = 5.0
"""Seconds that tasks which handlers have left behind may take to end, once they are cancelled."""


class EventLoop:
    """Ends when all its lanes have ended and their events are handled."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lanes: list[TaskLane] = []
        self._thread = threading.Thread(target=self._run, name="de-asyncio", daemon=True)
        self._process = os.getpid()
        self._is_over = False

    def add_lane(self, registration: Registration) -> TaskLane:
        lane = TaskLane(registration, self._loop, self._end_when_all_have)
        self._lanes.append(lane)
        return lane

    def start(self, runner: Runner) -> None:
        self._runner = runner
        for lane in self._lanes:
            lane.runner = runner
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _end_when_all_have(self) -> None:
        if all(lane.is_over for lane in self._lanes):
            self._is_over = True
            self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._is_over:  # a handler may have stopped the loop, but it is not the handler's
                self._persist(self._loop.run_forever)
            self._end_what_is_left()
            self._loop.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread must hear of it
            if os.getpid() != self._process:
                end_fork(error)  # a handler forked, and did not end the fork
            self._runner.crashed(error)

    def _end_what_is_left(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()

        def wait() -> None:
            pending = {task for task in tasks if not task.done()}
            if pending:
                self._loop.run_until_complete(asyncio.wait(pending, timeout=LAST_WORDS))

        self._persist(wait)
        for task in tasks:
            if not task.done():
                logger.warning("a task that a handler left behind does not end: %s", printable(task.get_name()))
            elif not task.cancelled() and task.exception() is not None:
                logger.error("a task that a handler left behind failed", exc_info=task.exception())
        self._persist(lambda: self._loop.run_until_complete(self._loop.shutdown_asyncgens()))

    def _persist(self, run: Callable[[], None]) -> None:
        """asyncio lets these two errors out of the loop. Ours can only come from what a handler has left behind."""
        while True:
            try:
                return run()
            except (SystemExit, KeyboardInterrupt) as error:
                if os.getpid() != self._process:
                    raise
                logger.error("a task that a handler left behind raised %s", type(error).__name__, exc_info=error)


class TaskLane:
    """A hand-over whose reader is the loop: a task for each event, at most `concurrency` at a time.

    `put`, `take_back` and `end` may be called in any thread; the rest belongs into the loop's.
    """

    runner: Runner

    def __init__(self, registration: Registration, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        self.is_over = False
        self._name = registration.name
        self._concurrency = registration.concurrency
        self._loop = loop
        self._ended = ended
        self._items: deque[Delivery] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_called = False
        self._is_ending = False

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, delivery: Delivery) -> None:
        self._items.append(delivery)
        # One wake-up for many items: a call that has not come yet will find this one too.
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has crashed, and the consumer is about to hear of it
                self._loop.call_soon_threadsafe(self._begin)

    def take_back(self) -> list[Delivery]:
        """Everything that has not begun, oldest first."""
        return take_all(self._items)

    def end(self) -> None:
        """What is there is handled still, then it is over."""
        if not self._is_ending:
            self._is_ending = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._is_called = False
        while len(self._tasks) < self._concurrency:
            try:
                delivery = self._items.popleft()
            except IndexError:
                break
            handling = self._handle(delivery)
            task = self._loop.create_task(handling, name=self._name, context=self.runner.context.copy())
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, delivery))
        if self._is_ending and not self._tasks and not self._items:
            self.is_over = True
            self._ended()

    async def _handle(self, delivery: Delivery) -> None:
        process = os.getpid()
        try:
            await self.runner.run_async(delivery)
        except BaseException as error:
            if os.getpid() != process:
                end_fork(error)  # before the loop does anything more in it
            raise

    def _done(self, delivery: Delivery, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not delivery.begun:
                # Somebody cancels all tasks that there are; this one has not even begun.
                self._items.appendleft(delivery)
        elif (error := task.exception()) is not None:
            self.runner.crashed(error)
        self._begin()
