"""Which exchanges and queues a receiver needs. Pure: plans, nothing is declared here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from domain_events.policy import LONGEST_DELAY
from domain_events.registration import Registration

EXCHANGE_TYPE = "topic"
DELIVERY_LIMIT = 100
"""How often a quorum queue delivers before it dead-letters by itself. A net far below our own policy."""

UNLIMITED = 2**31 - 1
"""As a delivery limit. Left out, RabbitMQ 4.0 and newer take 20: who looks at a dead letter 21 times drops it. A -1
would mean unlimited from 4.0 on, and on 3.10 drop at the first return. See docs/decisions/0010."""

EXPIRY_OF_PASSING_QUEUES = 60_000
"""Milliseconds that the queue of a `durable=False` receiver lives without a consumer."""

SETTLING_TIME = 1.0
"""Seconds until a new quorum queue survives a SIGKILL of its broker. Seen on 3.10, 4.0 and 4.3: one that was declared
less than half a second before is gone afterwards, with all confirmed events in it. See docs/decisions/0003."""

MOVING = ":retry:moving"
"""At the end of the name of a queue that holds the events of another while that is made anew."""

_LONGEST_TTL = int(LONGEST_DELAY * 1000)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue to declare: always durable, never exclusive, never auto-delete."""

    name: str
    arguments: Mapping[str, str | int] = field(hash=False)


def main_queue(registration: Registration) -> Queue:
    """The queue that the receiver consumes from."""
    name = registration.name
    alone: dict[str, str | int] = {"x-single-active-consumer": True} if registration.single_active else {}
    if not registration.durable:
        # Not transient: RabbitMQ 4.3 refuses that. Not auto-delete: that would lose what comes between the last
        # child's crash and its restart.
        return Queue(name, {"x-queue-type": "classic", "x-expires": EXPIRY_OF_PASSING_QUEUES, **alone})
    if registration.queue_type == "classic":
        return Queue(name, {"x-queue-type": "classic", **alone})
    return Queue(
        name,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            **_handed_on_safely_to(dead_letter_queue_name(name)),
            **alone,
        },
    )


def dead_letter_queue(receiver: str) -> Queue:
    return Queue(dead_letter_queue_name(receiver), {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED})


@lru_cache(maxsize=1024)
def retry_queue(receiver: str, delay: int) -> Queue:
    """Where events wait `delay` milliseconds before the broker hands them back to `receiver`.

    One queue for each delay: all in it have the same time to live, so none waits behind a longer one.
    """
    return Queue(
        f"{receiver}:retry:{delay}",
        {"x-queue-type": "quorum", "x-message-ttl": delay, **_handed_on_safely_to(receiver)},
    )


def dead_letter_queue_name(receiver: str) -> str:
    return f"{receiver}:dead"


def retry_delay(seconds: float) -> int:
    """`seconds` as milliseconds, rounded up to two significant digits.

    25 s, 1.5 s and 300 ms stay exact; 1.234 s becomes 1300 ms. So jitter leads to some ninety queues for each
    power of ten, not to one for each event.
    """
    # 1e-6: 0.3 * 1000 is 300.00000000000006 on some days, and must not become 310.
    exact = math.ceil(seconds * 1000 - 1e-6)
    unit = int("1".ljust(len(str(exact)) - 1, "0"))
    return min(-(-exact // unit) * unit, _LONGEST_TTL)


def retry_delays() -> Iterator[int]:
    """Every delay that a retry queue may have, milliseconds, ascending."""
    yield from range(1, 100)
    unit = 10
    while (first := 10 * unit) <= _LONGEST_TTL:
        yield from range(first, min(10 * first, _LONGEST_TTL + 1), unit)
        unit *= 10
    yield _LONGEST_TTL


def retry_queue_delay(receiver: str, name: str) -> int | None:
    """The delay of this retry queue of `receiver`, milliseconds; None when it is none."""
    head, _, delay = name.rpartition(":retry:")
    return int(delay) if head == receiver and delay.isascii() and delay.isdigit() else None


def transit_queue(queue: Queue) -> Queue:
    """Where the events of `queue` are while it is made anew. No receiver can have this name."""
    return Queue(queue.name + MOVING, {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED})


def _handed_on_safely_to(queue: str) -> dict[str, str | int]:
    """Dead-letter arguments of a quorum queue that keep an event until the next queue has confirmed it.

    at-least-once works only with reject-publish (rabbitmq.com/docs/quorum-queues#dead-lettering).
    """
    return {
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
    }
