"""What happened, told to whoever wants to know: the supervisor, metrics, traces, the user's own code."""

from __future__ import annotations

import inspect
from typing import Protocol, TypeVar

from domain_events.events import DomainEvent


class Observer(Protocol):
    """Told by consumers and senders what happens. Derive from `NullObserver` and override what you need.

    `consuming` and `disconnected` are called in the I/O thread, what concerns a delivery where the handler runs, and
    what concerns a sent event where it is sent: from several threads at once. What they do, the next event waits for.
    What they raise is logged and harms nobody.

    `receiver` is the name of a receiver. `event` is None where the bytes were no domain event, or killed whoever read
    them.
    """

    def consuming(self) -> None:
        """Every receiver of this process is subscribed."""

    def disconnected(self, reason: str) -> None:
        """The broker is gone; the consumer is trying to come back. Called for each failed attempt."""

    def started(self, receiver: str, event: DomainEvent) -> None:
        """The handler is about to be called."""

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        """The handler returned after `seconds`."""

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        """It was not handled: `retried` or `dead_lettered` follows at once, and says what becomes of it.

        `error`: what the handler raised after `seconds`, a Retry or DeadLetter too; or the MalformedEvent, with no
        event. None: its consumers died of it, and no handler was called. `reason`: one line for a person, printable.
        """

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        """The handler failed; the event comes back after `delay` seconds."""

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        """The event was given up. `dropped`: the receiver opted out of dead letters, the event is gone."""

    def sent(self, event: DomainEvent, seconds: float) -> None:
        """The broker has confirmed it, `seconds` after the call: of many, when that is known of all of them."""

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        """It is not confirmed. Not told of what cannot be an event, which is refused before anything is sent."""


class NullObserver:
    """Does nothing about anything."""

    def consuming(self) -> None: ...

    def disconnected(self, reason: str) -> None: ...

    def started(self, receiver: str, event: DomainEvent) -> None: ...

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None: ...

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None: ...

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None: ...

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None: ...

    def sent(self, event: DomainEvent, seconds: float) -> None: ...

    def send_failed(self, event: DomainEvent, error: BaseException) -> None: ...


T = TypeVar("T", bound=Observer)

everybody: list[Observer] = []
"""Who observes this process, in the order of their coming. To be asked for each send whether there is somebody."""


def observe(observer: T) -> T:
    """From now on, tell `observer` what happens in this process, and in those that are forked from it.

    Senders do so at once, consumers when they begin. Call it where your receivers are, or where your service starts.
    One that is told already is not told twice. Returns the observer. Raises TypeError for what cannot observe.
    """
    _check(observer)
    if not any(each is observer for each in everybody):
        everybody.append(observer)
    return observer


def registered() -> tuple[Observer, ...]:
    """Everybody that `observe` was called with."""
    return tuple(everybody)


def _check(observer: object) -> None:
    if isinstance(observer, type):
        raise TypeError(f"observe() needs an object: {observer.__name__}(), not the class")
    for name in _METHODS:
        method = getattr(observer, name, None)
        if not callable(method):
            raise TypeError(f"observe(): {type(observer).__name__} has no method {name}(); derive it from NullObserver")
        if inspect.iscoroutinefunction(method):
            raise TypeError(f"observe(): {type(observer).__name__}.{name}() is a coroutine, which nobody would await")


_METHODS = [name for name in vars(NullObserver) if not name.startswith("_")]
