"""From an outcome to what the broker is told, with a line in the log for what did not go well."""

from __future__ import annotations

import logging
import time
from typing import assert_never

from domain_events.events import DomainEvent
from domain_events.policy import LONGEST_DELAY, Handled, Outcome, Retry, RetryLater, SetAside
from domain_events.showing import printable
from domain_events.transport.settlement import ACK, Copy, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.topology import dead_letter_queue, main_queue, retry_delay, retry_queue
from domain_events.transport.wire import Failure, Progress, dead_letter_properties, retry_properties

logger = logging.getLogger(__name__)


def settlement_of(
    delivery: Delivery,
    progress: Progress,
    outcome: Outcome,
    event: DomainEvent | None,
    error: BaseException | None = None,
    failure: Failure | None = None,
) -> Settlement:
    """`failure`: for the dead letter, instead of what `error` says."""
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
            shown = _shown(event, delivery)
            if not registration.dead_letter:
                # It is gone with this: who reads the log must be able to find it at its sender's.
                logger.error("receiver %s drops %s: %s", registration.name, shown, reason, exc_info=error)
                return ACK
            logger.error("receiver %s dead-letters %s: %s", registration.name, shown, reason, exc_info=error)
            return Copy(
                dead_letter_queue(registration.name),
                dead_letter_properties(
                    delivery.properties,
                    progress,
                    failure or Failure.of(reason, error),
                    receiver=registration.name,
                    now=time.time(),
                    largest=delivery.largest_headers,
                ),
            )
    assert_never(outcome)


def _shown(event: DomainEvent | None, delivery: Delivery) -> str:
    """An event for the log: its id and routing key, which may come from a hostile sender, on one line."""
    if event is not None:
        identifier, routing_key = event.uuid_string, event.routing_key
    else:
        identifier, routing_key = str(delivery.properties.message_id or "without an id"), delivery.routing_key
    return f"event {printable(identifier)} ({printable(routing_key)})"
