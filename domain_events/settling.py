"""From an outcome to what the broker is told, with a line in the log for what did not go well."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

from domain_events import alerts
from domain_events.events import DomainEvent
from domain_events.policy import LONGEST_DELAY, Handled, Outcome, Retry, RetryLater, SetAside
from domain_events.showing import printable
from domain_events.transport.settlement import ACK, Copy, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.topology import dead_letter_queue, main_queue, retry_delay, retry_queue
from domain_events.transport.wire import (
    Failure,
    Progress,
    dead_letter_properties,
    garbage_id,
    known_id,
    retry_properties,
)

logger = logging.getLogger(__name__)


def settlement_of(
    delivery: Delivery,
    progress: Progress,
    outcome: Outcome,
    event: DomainEvent | None,
    error: BaseException | None = None,
    failure: Failure | None = None,
    alert: Callable[[DomainEvent], object] | None = None,
) -> Settlement:
    """`failure`: for the dead letter, instead of what `error` says. `alert`: takes alerts, if there are to be any."""
    registration = delivery.registration
    match outcome:
        case Handled():
            return ACK
        case RetryLater(delay=delay):
            if isinstance(error, Retry) and error.delay is not None and error.delay > LONGEST_DELAY:
                logger.warning("receiver %s: a delay of %g s was cut to 49 days", registration.name, error.delay)
            milliseconds = retry_delay(delay)
            if logger.isEnabledFor(logging.INFO):
                logger.info(
                    "receiver %s retries %s in %g s (retry %d of %d): %s",
                    registration.name,
                    _shown(event, delivery),
                    milliseconds / 1000,
                    progress.retries + 1,
                    registration.policy.max_retries,
                    printable(type(error).__name__),
                )
            queue = retry_queue(registration.name, milliseconds) if milliseconds else main_queue(registration)
            largest = delivery.largest_headers
            return Copy(queue, retry_properties(delivery.properties, progress, time.time(), largest=largest))
        case SetAside(reason=reason):
            shown, now = _shown(event, delivery), time.time()
            failure = failure or Failure.of(reason, error)
            told: Callable[[], object] | None = None
            if alert is not None and (about := _alert(delivery, progress, event, failure, now)) is not None:
                told = partial(alert, about)
            if not registration.dead_letter:
                # It is gone with this: who reads the log must be able to find it at its sender's.
                logger.error("receiver %s drops %s: %s", registration.name, shown, reason, exc_info=error)
                if told is not None:
                    told()
                return ACK
            logger.error("receiver %s dead-letters %s: %s", registration.name, shown, reason, exc_info=error)
            return Copy(
                dead_letter_queue(registration.name),
                dead_letter_properties(
                    delivery.properties,
                    progress,
                    failure,
                    receiver=registration.name,
                    now=now,
                    largest=delivery.largest_headers,
                ),
                confirmed=told,
            )
    assert_never(outcome)


def _alert(
    delivery: Delivery, progress: Progress, event: DomainEvent | None, failure: Failure, now: float
) -> DomainEvent | None:
    keys = [delivery.routing_key, progress.routing_key]
    return alerts.dead_lettered(
        receiver=delivery.registration.name,
        event_id=_id_of(delivery, event, failure),
        routing_keys=keys if event is None else [*keys, event.routing_key],
        reason=failure.reason,
        error_type=failure.error_type,
        error_message=failure.error_message,
        retries=progress.retries,
        sent_at=None if event is None else event.timestamp,
        dead_at=now,
        dropped=not delivery.registration.dead_letter,
    )


def _id_of(delivery: Delivery, event: DomainEvent | None, failure: Failure) -> str:
    """As `domain-events dead-letters` shows it."""
    if event is not None:
        return event.uuid_string
    is_event = failure.error_type is not None  # it is condemned, and was not read again
    return (known_id if is_event else garbage_id)(delivery.properties, delivery.body)


def _shown(event: DomainEvent | None, delivery: Delivery) -> str:
    """An event for the log: its id and routing key, which may come from a hostile sender, on one line."""
    if event is not None:
        identifier, routing_key = event.uuid_string, event.routing_key
    else:
        identifier, routing_key = str(delivery.properties.message_id or "without an id"), delivery.routing_key
    return f"event {printable(identifier)} ({printable(routing_key)})"
