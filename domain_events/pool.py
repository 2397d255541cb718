"""The threads that handle the events of one receiver with `threads=`."""

from __future__ import annotations

import os
import threading

from domain_events.forks import end_fork
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.transport.handover import SharedHandOver
from domain_events.transport.subscription import Delivery


class Pool:
    def __init__(self, registration: Registration) -> None:
        self.lane: SharedHandOver[Delivery] = SharedHandOver()
        self._size = registration.concurrency
        self._threads: list[threading.Thread] = []

    def start(self, runner: Runner) -> None:
        for n in range(1, self._size + 1):
            # Daemons: a handler that never ends must not hold up the end of the process.
            thread = threading.Thread(target=self._work, args=(runner,), name=f"de-handler-{n}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _work(self, runner: Runner) -> None:
        process = os.getpid()
        try:
            while (delivery := self.lane.take()) is not None:
                runner.run(delivery)
            runner.end_thread()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread must hear of it
            if os.getpid() != process:
                end_fork(error)  # a handler forked, and did not end the fork
            runner.crashed(error)
