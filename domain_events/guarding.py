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

P = ParamSpec("P")
T = TypeVar("T")


class GuardedObserver:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def consuming(self) -> None:
        self._tell(lambda: self._observer.consuming())

    def disconnected(self, reason: str) -> None:
        self._tell(lambda: self._observer.disconnected(reason))

    def started(self, receiver: str, event: DomainEvent) -> None:
        self._tell(lambda: self._observer.started(receiver, event))

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._tell(lambda: self._observer.handled(receiver, event, seconds))

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._tell(lambda: self._observer.retried(receiver, event, seconds, delay))

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._tell(lambda: self._observer.dead_lettered(receiver, event, seconds, reason, dropped=dropped))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            # The observer may be the user's.
            logger.exception("an observer failed")


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
