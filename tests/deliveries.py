"""Deliveries without a broker, and a consumer that writes down what becomes of them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pika

from domain_events import DomainEvent, NullObserver
from domain_events.gate import Gate
from domain_events.oversight import Suspicion
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.stopping import Stop
from domain_events.transport.settlement import Settlement
from domain_events.transport.subscription import Delivery
from tests.registrations import register
from tests.waiting import wait_until

CHANNEL: Any = object()
NEVER = Stop()
"""Nobody requests it."""


class Place:
    """What a delivery wants of its subscription."""

    channel = CHANNEL
    largest_frame = 131072

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self.watched: dict[Any, Callable[[bool], None]] = {}


def delivery(registration: Registration, data: Any = None, *, body: bytes | None = None) -> Delivery:
    """Its event has the id `id-<data>`."""
    place: Any = Place(registration)
    event = DomainEvent("user.made", data, uuid_string=f"id-{data}")
    return Delivery(place, CHANNEL, 1, "user.made", pika.BasicProperties(), event.encode() if body is None else body)


def received(properties: pika.BasicProperties | bytes, body: Any, routing_key: str = "user.made") -> Delivery:
    """A delivery to nobody: only to be read."""
    nobody: Any = None
    return Delivery(nobody, CHANNEL, 1, routing_key, properties, body)


class Desk:
    """Stands for the consumer: keeps what is in hand, and each delivery with its settlement."""

    def __init__(self) -> None:
        self.in_hand: list[Delivery] = []
        self.settled: list[tuple[Delivery, Settlement]] = []
        self.failures: list[BaseException] = []

    def begin(self, delivery: Delivery) -> None:
        delivery.begun = 1.0
        self.in_hand.append(delivery)

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        self.in_hand.remove(delivery)
        self.settled.append((delivery, settlement))
        for told in delivery.subscription.watched.values():
            told(True)

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)

    @property
    def settlements(self) -> list[Settlement]:
        return [settlement for _, settlement in self.settled]

    def wait(self, n: int) -> list[Settlement]:
        """All settlements, once there are `n`."""
        wait_until(lambda: len(self.settled) >= n, what=f"{n} settlements")
        return self.settlements


class Told(NullObserver):
    """What an observer was told, in order: ("started", id), ("handled", id), ..."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str]] = []

    def started(self, receiver: str, event: DomainEvent) -> None:
        self.words.append(("started", event.uuid_string))

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self.words.append(("handled", event.uuid_string))

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self.words.append(("retried", event.uuid_string))

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self.words.append(("dropped" if dropped else "dead-lettered", reason))


def runner(
    desk: Desk,
    *,
    stop: Stop | None = None,
    told: NullObserver | None = None,
    judge: Callable[[str], Suspicion | None] | None = None,
    gate: Gate | None = None,
    **given: Any,
) -> Runner:
    return Runner(
        desk,
        stop=stop or NEVER,
        observer=told or NullObserver(),
        judge=judge,
        gate=gate,
        context=contextvars.copy_context(),
        **given,
    )


def handling(handler: Callable[[DomainEvent], Any], **given: Any) -> Registration:
    """A registration for `handler`."""
    return register(handler, **given)
