"""Receivers that run in threads of a test, and handlers that write down what they were given."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from domain_events import DomainEvent, Receiver
from tests.waiting import wait_until


class Seen:
    """A handler that keeps its events; `then`, when given, decides how each of them ends."""

    def __init__(self, then: Callable[[DomainEvent], Any] | None = None) -> None:
        self.events: list[DomainEvent] = []
        self._then = then

    def __call__(self, event: DomainEvent) -> None:
        self.events.append(event)
        if self._then is not None:
            self._then(event)

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.events]

    @property
    def retries(self) -> list[int]:
        return [event.retries for event in self.events]

    def wait(self, n: int, deadline: float = 60.0) -> list[DomainEvent]:
        """All events, once there are `n` of them."""
        wait_until(lambda: len(self.events) >= n, deadline, f"{n} events handled")
        return self.events


class Consuming:
    """A receiver that consumes in a thread."""

    def __init__(self, receiver: Receiver, timeout: float | None = None) -> None:
        self._receiver = receiver
        self._timeout = timeout
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Asks for the end, also of one that is about to begin."""

        def stopped() -> bool:
            self._receiver.stop_consuming()
            return self.ended

        wait_until(stopped, what="the end of start_consuming")

    def _run(self) -> None:
        try:
            self._receiver.start_consuming(self._timeout)
        except BaseException as error:
            self.error = error


@contextlib.contextmanager
def consuming(*receivers: Receiver) -> Iterator[None]:
    """All of them run, each in a thread of its own, until the end of the block; then they must have ended well."""
    running = [Consuming(receiver) for receiver in receivers]
    try:
        yield
    finally:
        for each in running:
            each.stop()
    for each in running:
        if each.error is not None:
            raise each.error
