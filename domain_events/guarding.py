"""Observers and overseers as a consumer may call them: what they raise is logged and harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

from domain_events.events import DomainEvent
from domain_events.observers import NullObserver, Observer
from domain_events.oversight import Oversight

logger = logging.getLogger(__name__)

_RAISED = (Exception, SystemExit)
"""By observers, that is. Not KeyboardInterrupt: it may have come from a signal while an observer was at work."""

P = ParamSpec("P")
T = TypeVar("T")


def told(observers: Sequence[Observer]) -> Observer:
    """All of them as one, fit to be called for each event: when there is none, it costs next to nothing."""
    return GuardedObservers(observers) if observers else NullObserver()


class GuardedObservers:
    """Tells each of them, whatever the others raise.

    Of an event in hand the first is the first to hear that it is, and the last to hear that it is not any more: what
    the others do meanwhile is done with the event in hand.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        """`observers` may grow."""
        self._observers = observers
        self._known: set[tuple[int, str, type[BaseException]]] = set()

    # They may be the user's. One loop and one `try` each: two of these are called for every event.

    def consuming(self) -> None:
        for observer in self._observers:
            try:
                observer.consuming()
            except _RAISED as error:
                self._log(observer, "consuming", error)

    def disconnected(self, reason: str) -> None:
        for observer in self._observers:
            try:
                observer.disconnected(reason)
            except _RAISED as error:
                self._log(observer, "disconnected", error)

    def started(self, receiver: str, event: DomainEvent) -> None:
        for observer in self._observers:
            try:
                observer.started(receiver, event)
            except _RAISED as error:
                self._log(observer, "started", error)

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        for observer in reversed(self._observers):
            try:
                observer.handled(receiver, event, seconds)
            except _RAISED as error:
                self._log(observer, "handled", error)

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        for observer in reversed(self._observers):
            try:
                observer.failed(receiver, event, seconds, error, reason)
            except _RAISED as own:
                self._log(observer, "failed", own)

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        for observer in reversed(self._observers):
            try:
                observer.retried(receiver, event, seconds, delay)
            except _RAISED as error:
                self._log(observer, "retried", error)

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        for observer in reversed(self._observers):
            try:
                observer.dead_lettered(receiver, event, seconds, reason, dropped=dropped)
            except _RAISED as error:
                self._log(observer, "dead_lettered", error)

    def sent(self, event: DomainEvent, seconds: float) -> None:
        for observer in self._observers:
            try:
                observer.sent(event, seconds)
            except _RAISED as error:
                self._log(observer, "sent", error)

    def send_failed(self, event: DomainEvent, error: BaseException) -> None:
        for observer in self._observers:
            try:
                observer.send_failed(event, error)
            except _RAISED as own:
                self._log(observer, "send_failed", own)

    def _log(self, observer: Observer, method: str, error: BaseException) -> None:
        kind = (id(observer), method, type(error))
        if kind not in self._known:  # once: it may come with each event
            self._known.add(kind)
            name = type(observer).__name__
            logger.error("the observer %s failed in %s(); it is logged once", name, method, exc_info=error)


def guarded(oversight: Oversight) -> Oversight:
    """They are our own, and raise nothing: should one do so all the same, events go on."""
    return replace(
        oversight,
        judge=_harmless(oversight.judge),
        forgive=_harmless(oversight.forgive),
        reading=_harmless(oversight.reading),
        beat=_harmless(oversight.beat),
    )


def _harmless(function: Callable[P, T]) -> Callable[P, T | None]:
    is_known = False

    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        nonlocal is_known
        try:
            return function(*args, **kwargs)
        except Exception:
            if not is_known:  # once: it may come with each event
                is_known = True
                logger.exception("an error of this library: the oversight of a consumer failed")
            return None

    return call
