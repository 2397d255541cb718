"""Observers and overseers as a consumer may call them: what they raise is logged and harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

from domain_events.events import DomainEvent
from domain_events.observers import Observer
from domain_events.oversight import Oversight

logger = logging.getLogger(__name__)

_FAILED = "an observer failed"

P = ParamSpec("P")
T = TypeVar("T")


class GuardedObserver:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    # The observer may be the user's. One `try` each: two of these are called for every event.

    def consuming(self) -> None:
        try:
            self._observer.consuming()
        except Exception:
            logger.exception(_FAILED)

    def disconnected(self, reason: str) -> None:
        try:
            self._observer.disconnected(reason)
        except Exception:
            logger.exception(_FAILED)

    def started(self, receiver: str, event: DomainEvent) -> None:
        try:
            self._observer.started(receiver, event)
        except Exception:
            logger.exception(_FAILED)

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        try:
            self._observer.handled(receiver, event, seconds)
        except Exception:
            logger.exception(_FAILED)

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        try:
            self._observer.retried(receiver, event, seconds, delay)
        except Exception:
            logger.exception(_FAILED)

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        try:
            self._observer.dead_lettered(receiver, event, seconds, reason, dropped=dropped)
        except Exception:
            logger.exception(_FAILED)


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
