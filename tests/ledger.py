"""Where every event is: sent = handled + queued + waiting for a retry + dead-lettered. Duplicates are counted apart."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterable
from typing import Any

from domain_events import DomainEvent, Retry
from tests.brokers import Queues
from tests.waiting import wait_until


class Worker:
    """A handler of events whose data is [kind, n], that writes down what it begins and what it ends.

    Kinds: `plain`; `retry`, handled when it comes back; `dead`, never handled; `slow`, which waits for `go_on`.
    """

    def __init__(self, delay: float = 0.2) -> None:
        self.begun: list[tuple[str, Any]] = []
        self.handled: list[tuple[str, Any]] = []
        self.at: list[float] = []
        """When each of `handled` was (time.monotonic())."""
        self.go_on = threading.Event()
        self._delay = delay

    def __call__(self, event: DomainEvent) -> None:
        kind, n = event.data
        self.begun.append((kind, n))
        if kind == "slow":
            assert self.go_on.wait(60)
        if kind == "retry" and not event.retries:
            raise Retry(self._delay)
        if kind == "dead":
            raise ValueError(n)
        self.at.append(time.monotonic())
        self.handled.append((kind, n))

    def wait_begun(self, n: int, deadline: float = 60.0) -> None:
        wait_until(lambda: len(self.begun) >= n, deadline, f"{n} events begun")

    def wait_handled(self, n: int, deadline: float = 60.0) -> None:
        wait_until(lambda: len(self.handled) >= n, deadline, f"{n} events handled")


class Ledger:
    """Of one receiver. `retries_ms`: the delays of its retry queues."""

    def __init__(self, queues: Queues, name: str, *retries_ms: int) -> None:
        self._queues = queues
        self._places = [name, f"{name}:dead", *(f"{name}:retry:{ms}" for ms in retries_ms)]

    def balance(self, sent: Iterable[tuple[str, Any]], handled: Iterable[tuple[str, Any]]) -> int:
        """Takes what is in the queues. Nothing may be missing; returns how many duplicates there are.

        The broker may still have to notice that a connection is gone, to give back what it had.
        """
        found = collections.Counter(handled)
        wanted = set(sent)

        def complete() -> bool:
            for queue in self._places:
                for _, _, body in self._queues.drain(queue):
                    kind, n = DomainEvent.from_json(body).data
                    found[kind, n] += 1
            return wanted <= set(found)

        wait_until(complete, 60, "all that was sent, handled or in a queue", pause=0.2)
        assert set(found) == wanted
        return sum(found.values()) - len(found)
