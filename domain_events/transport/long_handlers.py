"""Events that are in hand for so long that the broker is about to take them back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from domain_events.transport.subscription import Delivery, Subscription

logger = logging.getLogger(__name__)

LONG_HANDLER = 15 * 60.0
"""Seconds: half of the broker's delivery acknowledgement timeout (rabbitmq.com/docs/consumers)."""

LOOKS_EVERY = 10.0
"""Seconds."""


class LongHandlers:
    """Warns once of each."""

    def __init__(self) -> None:
        self._warned_of: set[Delivery] = set()
        self._next_look = 0.0

    def look(self, in_hand: Iterable[Delivery], now: float) -> None:
        """Cheap, to be called often. `now`: time.monotonic()."""
        if now < self._next_look:
            return
        self._next_look = now + LOOKS_EVERY
        deliveries = list(in_hand)
        self._warned_of.intersection_update(deliveries)
        for delivery in deliveries:
            if now - delivery.begun > LONG_HANDLER and delivery not in self._warned_of:
                self._warned_of.add(delivery)
                logger.warning(
                    "receiver %s has been busy with one event for %d minutes; at twice that the broker takes it back",
                    delivery.registration.name,
                    LONG_HANDLER // 60,
                )

    def longest(self, in_hand: Iterable[Delivery], subscription: Subscription) -> float | None:
        """For how many seconds this subscription has been busy with its oldest event; None when it is with none."""
        begun = [delivery.begun for delivery in list(in_hand) if delivery.subscription is subscription]
        return time.monotonic() - min(begun) if begun else None
