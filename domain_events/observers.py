"""What happened, told to whoever wants to know: the supervisor, metrics, traces, the user's own code."""

from __future__ import annotations

from typing import Protocol

from domain_events.events import DomainEvent


class Observer(Protocol):
    """Told by a consumer what happens. Derive from `NullObserver` and override what you need.

    `consuming` and `disconnected` are called in the I/O thread, the others where the handler runs: with `threads=`
    from several threads at once. What an observer raises is logged and harms nobody. `event` is None where the bytes
    were no domain event, or it killed whoever read it.
    """

    def consuming(self) -> None:
        """Every receiver of this process is subscribed."""

    def disconnected(self, reason: str) -> None:
        """The broker is gone; the consumer is trying to come back. Called for each failed attempt."""

    def started(self, receiver: str, event: DomainEvent) -> None:
        """The handler is about to be called."""

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        """The handler returned after `seconds`."""

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        """The handler failed; the event comes back after `delay` seconds."""

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        """The event was given up. `dropped`: the receiver opted out of dead letters, the event is gone."""


class NullObserver:
    """Does nothing about anything."""

    def consuming(self) -> None: ...

    def disconnected(self, reason: str) -> None: ...

    def started(self, receiver: str, event: DomainEvent) -> None: ...

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None: ...

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None: ...

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None: ...
