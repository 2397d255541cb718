"""Sending while somebody observes or traces it: what becomes of each event is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from domain_events.errors import SendError
from domain_events.events import DomainEvent
from domain_events.guarding import GuardedObservers
from domain_events.observers import everybody
from domain_events.tracing import Tracer
from domain_events.transport.line import Message


class Sends(Protocol):
    """A `transport.sender.ConfirmedSender`, or one that tells of it."""

    def send(self, messages: Sequence[Message], timeout: float) -> Sequence[SendError | None]: ...

    async def send_async(self, messages: Sequence[Message], timeout: float) -> Sequence[SendError | None]: ...


class ObservedSender:
    """For the `events` of one call."""

    def __init__(self, sender: Sends, exchange: str, events: Sequence[DomainEvent], tracer: Tracer | None) -> None:
        self._sender = sender
        self._events = events
        self._began = time.monotonic()
        self._departure = tracer.departs(exchange, events) if tracer is not None else None

    @property
    def headers(self) -> Sequence[Mapping[str, str]] | None:
        """What is to be written into those of each event."""
        return self._departure.headers if self._departure is not None else None

    def send(self, messages: Sequence[Message], timeout: float) -> Sequence[SendError | None]:
        try:
            errors = self._sender.send(messages, timeout)
        except BaseException as error:
            self._tell([error] * len(self._events))
            raise
        self._tell(errors)
        return errors

    async def send_async(self, messages: Sequence[Message], timeout: float) -> Sequence[SendError | None]:
        try:
            errors = await self._sender.send_async(messages, timeout)
        except BaseException as error:  # its cancellation too
            self._tell([error] * len(self._events))
            raise
        self._tell(errors)
        return errors

    def _tell(self, errors: Sequence[BaseException | None]) -> None:
        seconds = time.monotonic() - self._began
        if self._departure is not None:
            self._departure.done(errors)
        for event, error in zip(self._events, errors, strict=True):
            if error is None:
                _observers.sent(event, seconds)
            else:
                _observers.send_failed(event, error)


_observers = GuardedObservers(everybody)
