"""Observers that write down what they are told, or raise, and that observe no longer than a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from domain_events import DomainEvent, NullObserver, Observer, observe
from domain_events.observers import everybody

T = TypeVar("T", bound=Observer)


@contextlib.contextmanager
def observing(observer: T) -> Iterator[T]:
    """Registered until the end of the block."""
    try:
        yield observe(observer)
    finally:
        everybody.remove(observer)


class Noted(NullObserver):
    """Each call as a tuple of its name and arguments, without seconds; and the threads that called."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []
        self.seconds: list[float] = []
        self.threads: set[str] = set()

    def __getitem__(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of all calls of that name."""
        return [word[1:] for word in self.words if word[0] == name]

    def consuming(self) -> None:
        self._note("consuming")

    def disconnected(self, reason: str) -> None:
        self._note("disconnected", reason)

    def started(self, receiver: str, event: DomainEvent) -> None:
        self._note("started", receiver, event)

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._note("handled", receiver, event, seconds=seconds)

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        self._note("failed", receiver, event, error, reason, seconds=seconds)

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._note("retried", receiver, event, delay, seconds=seconds)

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._note("dead_lettered", receiver, event, reason, dropped, seconds=seconds)

    def sent(self, event: DomainEvent, seconds: float) -> None:
        self._note("sent", event, seconds=seconds)

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        self._note("send_failed", event, error)

    def _note(self, *word: Any, seconds: float | None = None) -> None:
        self.words.append(word)
        self.threads.add(threading.current_thread().name)
        if seconds is not None:
            self.seconds.append(seconds)


class Raises(NullObserver):
    """Whatever it is told, it raises `error`."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def consuming(self) -> None:
        raise self._error

    def disconnected(self, reason: str) -> None:
        raise self._error

    def started(self, receiver: str, event: DomainEvent) -> None:
        raise self._error

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        raise self._error

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        raise self._error

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        raise self._error

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        raise self._error

    def sent(self, event: DomainEvent, seconds: float) -> None:
        raise self._error

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        raise self._error
