"""Deliveries in, outcomes out: the loop that calls handlers, in the thread that called `consume`."""

from __future__ import annotations

import inspect
import logging
import os
import random
import select
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, assert_never

from domain_events.errors import MalformedEvent
from domain_events.events import DomainEvent
from domain_events.observers import NullObserver, Observer
from domain_events.policy import LONGEST_DELAY, Handled, Outcome, Retry, RetryLater, SetAside, decide
from domain_events.registration import Handler, Registration
from domain_events.settings import configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.consumer import Ack, Consumer, Copy, GiveBack, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.topology import dead_letter_queue, main_queue, retry_delay, retry_queue
from domain_events.transport.wire import (
    Failure,
    Progress,
    dead_letter_properties,
    read_event,
    read_progress,
    retry_properties,
)

logger = logging.getLogger(__name__)

Forced: TypeAlias = Callable[[bool], None]
"""Called in the I/O thread on SIGQUIT; the argument tells whether a handler is running. Ends the process."""


def consume(
    registrations: Sequence[Registration],
    *,
    stop: Stop,
    observer: Observer | None = None,
    forced: Forced | None = None,
    timeout: float | None = None,
) -> None:
    """Handle the events of `registrations` in this thread until `stop` is requested and all is settled.

    All of them must have the same connection settings. `timeout`: seconds until it asks for the stop by itself.
    Reconnects by itself for ever. Raises ConfigurationError (TopologyMismatch) or BrokerRefused for what trying
    again cannot help.
    """
    told = _Guarded(observer or NullObserver())
    brokers = configured_brokers(registrations[0].connection_settings, "consumer")
    if brokers is None:
        logger.debug("offline: %s receive nothing", ", ".join(registration.name for registration in registrations))
        told.consuming()
        _wait_offline(stop, timeout)
        return
    consumer = Consumer(registrations, brokers, stop=stop, listener=told, forced=forced)
    consumer.start(timeout)
    try:
        while (delivery := consumer.take()) is not None:
            # The I/O thread takes back what waits in the hand-over; this one may just have left it.
            settlement = GiveBack() if stop.requested else _handle(delivery, told)
            consumer.settle(delivery, settlement)
    finally:
        consumer.close()
    if consumer.error is not None:
        raise consumer.error


def _handle(delivery: Delivery, observer: _Guarded) -> Settlement:
    registration = delivery.registration
    progress = read_progress(delivery.routing_key, delivery.properties.headers)
    try:
        event = read_event(delivery.properties, delivery.body, progress.retries)
    except MalformedEvent as malformed:
        outcome: Outcome = SetAside(reason=f"malformed: {malformed}")
        _report(observer, registration, None, 0.0, outcome)
        return _settle(delivery, progress, outcome, None, None)
    observer.started(registration.name, event)
    began = time.monotonic()
    error = _call(registration.handler, event)
    seconds = time.monotonic() - began
    outcome = decide(error, retries=event.retries, policy=registration.policy, spread=random.random())  # noqa: S311
    _report(observer, registration, event, seconds, outcome)
    return _settle(delivery, progress, outcome, event, error)


def _report(
    observer: _Guarded, registration: Registration, event: DomainEvent | None, seconds: float, outcome: Outcome
) -> None:
    match outcome:
        case SetAside(reason=reason):
            observer.dead_lettered(registration.name, event, seconds, reason, dropped=not registration.dead_letter)
        case RetryLater(delay=delay) if event is not None:
            observer.retried(registration.name, event, seconds, delay)
        case Handled() if event is not None:
            observer.handled(registration.name, event, seconds)


def _call(handler: Handler, event: DomainEvent) -> BaseException | None:
    """What the handler raised. Also SystemExit and KeyboardInterrupt are failures of this event, not of the child."""
    process = os.getpid()
    try:
        result = handler(event)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("the handler returned a coroutine that nobody would await; handlers are plain functions")
        if os.getpid() != process:
            raise SystemExit("a process that a handler forked came back from the handler: end it with os._exit()")
    except BaseException as error:  # the handler is not our code
        if os.getpid() != process:
            raise  # how a process that the handler has forked ends is not ours to say; it has no event of its own
        # Without our own frame: the traceback is for those who wrote the handler.
        beneath = error.__traceback__ and error.__traceback__.tb_next
        return error.with_traceback(beneath) if beneath is not None else error
    return None


def _settle(
    delivery: Delivery,
    progress: Progress,
    outcome: Outcome,
    event: DomainEvent | None,
    error: BaseException | None,
) -> Settlement:
    registration = delivery.registration
    shown = _shown(event, delivery)
    match outcome:
        case Handled():
            return Ack()
        case RetryLater(delay=delay):
            if isinstance(error, Retry) and error.delay is not None and error.delay > LONGEST_DELAY:
                logger.warning("receiver %s: a delay of %g s was cut to 49 days", registration.name, error.delay)
            milliseconds = retry_delay(delay)
            logger.info(
                "receiver %s retries %s in %g s (retry %d of %d): %s",
                registration.name,
                shown,
                milliseconds / 1000,
                progress.retries + 1,
                registration.policy.max_retries,
                type(error).__name__,
            )
            queue = retry_queue(registration.name, milliseconds) if milliseconds else main_queue(registration)
            return Copy(queue, retry_properties(delivery.properties, progress, time.time()))
        case SetAside(reason=reason):
            if not registration.dead_letter:
                # It is gone with this: who reads the log must be able to find it at its sender's.
                logger.error("receiver %s drops %s: %s", registration.name, shown, reason, exc_info=error)
                return Ack()
            logger.error("receiver %s dead-letters %s: %s", registration.name, shown, reason, exc_info=error)
            return Copy(
                dead_letter_queue(registration.name),
                dead_letter_properties(
                    delivery.properties,
                    progress,
                    Failure.of(reason, error),
                    receiver=registration.name,
                    now=time.time(),
                ),
            )
    assert_never(outcome)


def _shown(event: DomainEvent | None, delivery: Delivery) -> str:
    """An event for the log: its id and routing key, which may come from a hostile sender, on one line."""
    if event is not None:
        identifier, routing_key = event.uuid_string, event.routing_key
    else:
        identifier, routing_key = str(delivery.properties.message_id or "without an id"), delivery.routing_key
    return f"event {_one_line(identifier)} ({_one_line(routing_key)})"


def _one_line(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _wait_offline(stop: Stop, timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not stop.requested:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        if select.select([stop.fileno()], [], [], left)[0]:
            stop.read_signals()


class _Guarded:
    """An observer whose errors are logged and harm nobody."""

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
            logger.exception("an observer failed")
