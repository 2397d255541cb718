"""More consumers on one channel, while copies are not safe yet: never more than the prefetch that are not copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pika import spec
from pika.frame import Method

from domain_events.transport.handover import HandOver
from domain_events.transport.subscription import MOST_CONSUMERS, Delivery, Subscription
from tests.registrations import register


class Channel:
    """Writes down who consumes."""

    is_open = True
    channel_number = 1

    def __init__(self) -> None:
        self.consumers: list[str] = ["first"]
        self.said: list[str] = []
        self.answers: list[Callable[[], None]] = []

    def basic_consume(self, queue: str, on_message: object, callback: Callable[[Any], None]) -> str:
        self.consumers.append(f"{queue} {len(self.consumers)}")
        self.answers.append(partial(callback, Method(1, spec.Basic.ConsumeOk(self.consumers[-1]))))
        return self.consumers[-1]

    def answer(self) -> None:
        while self.answers:
            self.answers.pop()()

    def _send_method(self, method: spec.Basic.Cancel) -> None:
        self.basic_cancel(method.consumer_tag)

    def basic_cancel(self, tag: str) -> None:
        self.consumers.remove(tag)
        self.said.append("cancel")

    def basic_ack(self, tag: int, multiple: bool) -> None:
        self.said.append("ack")


class Place(Subscription):
    """Consumes, with a prefetch of 2."""

    def __init__(self, **given: Any) -> None:
        clock: Any = None
        lane: HandOver[Delivery] = HandOver()
        super().__init__(register(prefetch=2, **given), lane, lane.put, clock=clock)
        self.broker = Channel()
        channel: Any = self.broker
        self.channel = channel
        self.consuming = True
        self._consumer_tag = "first"

    def given(self, *tags: int) -> None:
        for tag in tags:
            self.unsettled.add(tag)

    def copied(self, *tags: int, answered: bool = True) -> int:
        """How many consumers there are then."""
        for tag in tags:
            self.settling.add(tag)
            self.widen()
        if answered:
            self.broker.answer()
        return len(self.broker.consumers)


def test_as_many_again_come_when_all_that_were_given_are_settling() -> None:
    place = Place()
    place.given(1, 2)
    assert place.copied(1) == 1
    assert place.copied(2) == 2
    place.given(3, 4)
    assert place.copied(3) == 2
    assert place.copied(4) == 3


def test_no_more_come_while_one_is_in_hand() -> None:
    place = Place()
    place.given(1, 2, 3)
    assert place.copied(1, 2) == 1
    place.unsettled.done(3)  # not acked yet: the next one comes for it
    assert place.copied(2) == 1


def test_no_more_come_while_the_prefetch_is_not_used_up() -> None:
    place = Place()
    place.given(1)
    assert place.copied(1) == 1


def test_the_other_consumers_end_before_what_was_settling_is_acked() -> None:
    place = Place()
    place.given(1, 2)
    place.copied(1, 2)
    place.narrow()
    place.unsettled.done(1)
    place.send_acks()
    assert place.broker.said == ["cancel", "ack"]
    assert place.broker.consumers == ["first"]
    place.narrow()
    assert place.broker.said == ["cancel", "ack"]


def test_one_that_the_broker_has_not_answered_about_ends_when_it_has() -> None:
    # Not before: the request may wait in the client still, and would come after its own end.
    place = Place()
    place.given(1, 2)
    assert place.copied(1, 2, answered=False) == 2
    place.narrow()
    assert place.broker.said == []
    place.broker.answer()
    assert place.broker.consumers == ["first"]


def test_it_widens_again_after_it_was_narrowed() -> None:
    place = Place()
    place.given(1, 2, 3, 4)
    place.copied(1, 2, 3, 4)
    place.narrow()
    assert place.copied(4) == 2


def test_a_drain_ends_all_consumers() -> None:
    place = Place()
    place.given(1, 2)
    place.copied(1, 2)
    place.stop()
    assert place.broker.consumers == []
    assert place.copied(2) == 0


def test_a_lost_channel_takes_them_along() -> None:
    place = Place()
    place.given(1, 2)
    place.copied(1, 2)
    place.reset()
    assert not place.settling
    place.broker.answer()
    place.channel = Channel()  # type: ignore[assignment]
    place.narrow()
    assert place.channel.said == []  # type: ignore[attr-defined]


def test_there_is_an_end_to_it() -> None:
    place = Place()
    for tag in range(1, 10 * MOST_CONSUMERS):
        place.given(tag)
        place.copied(tag)
    assert len(place.broker.consumers) == MOST_CONSUMERS


def test_a_single_active_consumer_stays_alone() -> None:
    # A second one would wait for the first, and take over in the middle when that leaves.
    place = Place(single_active=True)
    place.given(1, 2)
    assert place.copied(1, 2) == 1
