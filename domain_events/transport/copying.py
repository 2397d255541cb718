"""Events that go on in another queue: the copy is confirmed first, the original acknowledged second."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from pika import BasicProperties

from domain_events.errors import BrokerError, Unroutable
from domain_events.settings import Broker
from domain_events.transport.io_thread import IOThread
from domain_events.transport.pausing import LONGEST_PAUSE, pause
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.settlement import Copy
from domain_events.transport.subscription import Delivery, Subscription
from domain_events.transport.topology import SETTLING_TIME

logger = logging.getLogger(__name__)

LONGEST_SILENCE_IN_A_DRAIN = 5.0
"""Seconds that a drain waits for the broker to answer about a copy."""

MOST_WORDS = 1000
"""To those who ask for outcomes, that wait while the broker takes nothing. Anybody can send events that ask."""

MOMENT = 0.01
"""Seconds. Originals that may be acknowledged at almost the same time are acknowledged at the same time."""


class Copying:
    """Belongs into the I/O thread. The connection for copies opens at the first one."""

    def __init__(self, io: IOThread, brokers: Sequence[Broker], *, name: str, settled: Callable[[], None]) -> None:
        """`settled` is called whenever an event is done with."""
        self._io = io
        self._settled = settled
        self._publisher = Publisher(io, brokers, name=name, longest_pause=LONGEST_PAUSE)
        self._settling: dict[int, list[Delivery]] = {}  # copied into young queues, by the end of their wait in moments
        self._copied: set[Subscription] = set()  # with originals to acknowledge
        self._words = 0  # for those who have asked, on their way
        self._is_draining = False
        self._is_closing = False

    def copy(self, delivery: Delivery, copy: Copy, failures: int = 0) -> None:
        if delivery.is_stale:
            return
        subscription = delivery.subscription
        subscription.postponed.pop(delivery.tag, None)
        publication = Publication(
            exchange="",
            routing_key=copy.queue.name,
            properties=copy.properties,
            body=delivery.body,
            mandatory=True,
            needs=copy.queue,
            done=partial(self._on_copied, delivery, copy, failures),
        )
        subscription.copies[delivery.tag] = publication
        self._publisher.submit(publication)

    def tell(self, queue: str, body: bytes) -> None:
        """A word for somebody who waits. It is lost where there is no such queue, or too many wait."""
        if self._is_closing or self._words >= MOST_WORDS:
            return
        self._words += 1
        self._publisher.submit(
            Publication(
                exchange="",
                routing_key=queue,
                properties=BasicProperties(content_type="application/json", delivery_mode=1),
                body=body,
                mandatory=False,
                done=self._on_told,
            )
        )

    def withdraw(self, copies: Sequence[Publication]) -> None:
        """Their originals come again. Those that are under way may arrive all the same."""
        for copy in copies:
            self._publisher.cancel(copy)

    def drain(self, subscriptions: Sequence[Subscription]) -> None:
        """What cannot be stored now is given back, so that nothing holds up the end."""
        self._is_draining = True
        for subscription in subscriptions:
            while subscription.postponed:
                tag, timer = subscription.postponed.popitem()
                self._io.cancel(timer)
                subscription.give_back(tag)
        self._free_stuck(subscriptions)

    def close(self, closed: Callable[[], None]) -> None:
        self._is_closing = True
        self._publisher.close(closed)

    def forget(self) -> None:
        """In a forked child: see `Connection.forget`."""
        self._publisher.forget()

    def _on_told(self, error: BrokerError | None) -> None:
        self._words -= 1
        if error is not None:
            logger.info("whoever asked for an outcome is not told: %s", error)

    def _on_copied(self, delivery: Delivery, copy: Copy, failures: int, error: BrokerError | None) -> None:
        if delivery.is_stale:
            return
        subscription = delivery.subscription
        subscription.copies.pop(delivery.tag, None)
        if error is None:
            # Only now: a crash before this leaves two of the event, the other order none. And not before the queue
            # is old enough to survive a crash of the broker.
            settling = SETTLING_TIME - self._publisher.age(copy.queue)
            if settling > 0:
                self._ack_later(delivery, settling)
            else:
                self._ack(delivery)
            if copy.confirmed is not None:
                copy.confirmed()
        elif self._is_draining:
            subscription.give_back(delivery.tag)
            self._settled()
        elif isinstance(error, Unroutable) and not failures:
            self.copy(delivery, copy, failures + 1)  # the queue was deleted; it is declared again
        else:
            delay = max(1.0, pause(failures))
            logger.error(
                "receiver %s cannot put an event into %s: %s; it stays unacknowledged, trying again in %.1f s",
                delivery.registration.name,
                copy.queue.name,
                error,
                delay,
            )
            again = partial(self.copy, delivery, copy, failures + 1)
            subscription.postponed[delivery.tag] = self._io.later(delay, again)

    def _ack_later(self, delivery: Delivery, delay: float) -> None:
        now = time.monotonic()
        due = math.ceil((now + delay) / MOMENT)
        if due not in self._settling:
            self._settling[due] = []
            self._io.later(due * MOMENT - now, partial(self._on_settled, due))
        self._settling[due].append(delivery)
        delivery.body = b""  # it is done, and there may be many

    def _on_settled(self, due: int) -> None:
        for delivery in self._settling.pop(due):
            self._ack(delivery)

    def _ack(self, delivery: Delivery) -> None:
        if delivery.is_stale:
            return
        delivery.subscription.unsettled.done(delivery.tag)
        if not self._copied:
            # When everything has been looked at that the broker has just said: it confirms many at once, and one ack
            # is enough for all of them.
            self._io.later(0, self._send_acks)
        self._copied.add(delivery.subscription)

    def _send_acks(self) -> None:
        copied, self._copied = self._copied, set()
        for subscription in copied:
            subscription.send_acks()
        self._settled()

    def _free_stuck(self, subscriptions: Sequence[Subscription]) -> None:
        """A copy that the broker does not take now would hold up the drain: give its event back instead."""
        if self._is_closing:
            return
        if self._publisher.problem is not None or self._publisher.silence > LONGEST_SILENCE_IN_A_DRAIN:
            for subscription in subscriptions:
                for tag, copy in list(subscription.copies.items()):
                    self._publisher.cancel(copy)
                    subscription.give_back(tag)
                subscription.copies.clear()
            self._settled()
        self._io.later(0.2, partial(self._free_stuck, subscriptions))
