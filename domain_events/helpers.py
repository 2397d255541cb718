"""The threads besides the main one that handle events: pools for `threads=`, an event loop for coroutines."""

from __future__ import annotations

from collections.abc import Sequence

from domain_events.event_loop import EventLoop
from domain_events.pool import Pool
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.transport.handover import Lane


class Helpers:
    def __init__(self, registrations: Sequence[Registration]) -> None:
        self.lanes: dict[str, Lane] = {}
        """Of the receivers that this thread does not handle itself, by name."""
        self._pools: list[Pool] = []
        self._loop: EventLoop | None = None
        for registration in registrations:
            if registration.is_async:
                self._loop = self._loop or EventLoop()
                self.lanes[registration.name] = self._loop.add_lane(registration)
            elif registration.concurrency > 1:
                pool = Pool(registration)
                self._pools.append(pool)
                self.lanes[registration.name] = pool.lane

    def start(self, runner: Runner) -> None:
        for pool in self._pools:
            pool.start(runner)
        if self._loop is not None:
            self._loop.start(runner)

    def join(self) -> None:
        """Wait until they have ended, which they do when their lanes have."""
        for pool in self._pools:
            pool.join()
        if self._loop is not None:
            self._loop.join()

    def end(self) -> None:
        """They take no more."""
        for lane in self.lanes.values():
            lane.end()
