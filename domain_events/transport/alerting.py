"""Alerts on their way to the broker: after what they are about is settled, and never in its way.

They have a connection of their own, which opens at the first one: an exchange that is missing, a login that may not
write to it or a broker that takes no events closes or blocks that one only. At most BURST at once and RATE in a second
are sent for each process; the rest is counted, and told of in one alert.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from domain_events.alerts import EXCHANGE, suppressed
from domain_events.bucket import full_bucket
from domain_events.errors import BrokerError
from domain_events.events import DomainEvent
from domain_events.settings import Broker
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.wire import event_properties

logger = logging.getLogger(__name__)

BURST = 10.0
RATE = 1.0
"""For each second. A burst of ten thousand dead letters makes some dozen alerts, and not twice the load."""

SUMMARY_AFTER = 10.0
"""Seconds from the first alert that is suppressed to the one that says how many were."""

TIMEOUT = 10.0
"""Seconds for the broker to confirm an alert; then it is given up."""

FAREWELL = 1.0
"""Seconds that the end of a drain waits for alerts that are under way, with a broker that takes them."""


class Alerting:
    """Belongs into the I/O thread, but for `tell`."""

    def __init__(self, io: IOThread, brokers: Sequence[Broker], *, name: str) -> None:
        self._io = io
        self._publisher = Publisher(io, brokers, name=f"{name} (alerts)", exchange=EXCHANGE)
        self._bucket = full_bucket(RATE, time.monotonic(), BURST)
        self._under_way: dict[DomainEvent, Publication] = {}
        self._suppressed: Counter[str] = Counter()  # by receiver
        self._suppressed_since = 0.0
        self._failures = 0
        self._closed: Callable[[], None] | None = None
        self._is_closing = False

    def tell(self, alert: DomainEvent) -> None:
        """Send it soon, if it may be sent. From any thread; raises nothing, and waits for nothing."""
        self._io.call(partial(self._tell, alert))

    def close(self, closed: Callable[[], None]) -> None:
        """When everything is settled: give what is under way a moment, then leave the broker."""
        self._say_suppressed()
        self._is_closing = True
        self._closed = closed
        if self._under_way and self._publisher.problem is None:
            self._io.later(FAREWELL, self._leave)
        else:
            self._leave()

    def forget(self) -> None:
        """In a forked child: see `Connection.forget`."""
        self._publisher.forget()

    def _tell(self, alert: DomainEvent) -> None:
        now = time.monotonic()
        bucket = self._bucket.take(now)
        if bucket is not None:
            self._bucket = bucket
            self._send(alert)
            return
        if not self._suppressed:
            self._suppressed_since = now
            self._io.later(SUMMARY_AFTER, self._say_suppressed)
        self._suppressed[str(alert.domain_object_id)] += 1

    def _say_suppressed(self) -> None:
        counts, self._suppressed = self._suppressed, Counter()
        seconds = time.monotonic() - self._suppressed_since
        for receiver, n in counts.items():
            logger.warning(
                "receiver %s: %d more events were given up within %.1f s, without alerts of their own",
                receiver,
                n,
                seconds,
            )
            self._send(suppressed(receiver, n, seconds))

    def _send(self, alert: DomainEvent) -> None:
        if self._is_closing:
            self._failed(alert, "the consumer has ended")
            return
        publication = Publication(
            exchange=EXCHANGE,
            routing_key=alert.routing_key,
            properties=event_properties(alert),
            body=alert.encode(),
            mandatory=True,  # who asks for alerts should know that nobody gets them
            done=partial(self._on_done, alert),
        )
        self._under_way[alert] = publication
        self._publisher.submit(publication)
        self._io.later(TIMEOUT, partial(self._give_up, alert, TIMEOUT))

    def _on_done(self, alert: DomainEvent, error: BrokerError | None) -> None:
        self._under_way.pop(alert, None)
        if error is not None:
            self._failed(alert, str(error))
        if self._is_closing and not self._under_way:
            self._leave()

    def _give_up(self, alert: DomainEvent, seconds: float) -> None:
        publication = self._under_way.pop(alert, None)
        if publication is not None:
            reason = str(self._publisher.verdict(publication, seconds))
            self._publisher.cancel(publication)
            self._failed(alert, reason)

    def _failed(self, alert: DomainEvent, reason: str) -> None:
        self._failures += 1
        logger.warning(
            "alert %s about receiver %s was not sent (%d so far): %s",
            alert.routing_key,
            alert.domain_object_id,
            self._failures,
            reason,
        )

    def _leave(self) -> None:
        closed, self._closed = self._closed, None
        if closed is None:
            return
        for alert in list(self._under_way):
            self._give_up(alert, FAREWELL)
        self._publisher.close(closed)
