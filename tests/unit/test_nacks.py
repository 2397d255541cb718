"""When an event that the broker did not take is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable

from pika import BasicProperties

from domain_events.errors import BrokerError, EventNacked
from domain_events.transport.nacks import Nacks
from domain_events.transport.publication import Publication, State
from tests.waiting import wait_until


class Timers:
    """Stands for the I/O thread; time passes when it is told."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay: float, function: Callable[[], None]) -> None:
        self.set.append((delay, function))

    def run(self) -> float:
        delay, function = self.set.pop(0)
        function()
        return delay


class Broker:
    """Says no so many times."""

    def __init__(self, refusals: int = 100) -> None:
        self.refusals = refusals
        self.timers = Timers()
        self.nacks = Nacks(self.timers, self.submit)  # type: ignore[arg-type]
        self.tries: list[str] = []
        self.told: list[BrokerError | None] = []

    def submit(self, publication: Publication) -> None:
        publication.state = State.IN_FLIGHT
        self.tries.append(publication.routing_key)
        if len(self.tries) <= self.refusals:
            self.nacks.note(publication)
        else:
            self.nacks.taken(publication)
            publication.finish(None)

    def send(self, key: str = "a.b") -> Publication:
        publication = Publication(
            exchange="x",
            routing_key=key,
            properties=BasicProperties(),
            body=b"",
            mandatory=False,
            done=self.told.append,
        )
        self.submit(publication)
        return publication


def test_it_is_tried_again_until_it_is_taken() -> None:
    broker = Broker(refusals=2)
    broker.send()
    assert [broker.timers.run(), broker.timers.run()] == [0.25, 0.75]
    assert (len(broker.tries), broker.told, broker.timers.set) == (3, [None], [])


def test_its_owner_is_told_after_the_last_try() -> None:
    broker = Broker()
    broker.send()
    while broker.timers.set:
        broker.timers.run()
    [error] = broker.told
    assert isinstance(error, EventNacked)
    assert len(broker.tries) == 4


def test_where_all_tries_were_in_vain_the_next_event_is_tried_once_until_one_is_taken() -> None:
    broker = Broker(refusals=6)
    broker.send()
    while broker.timers.set:
        broker.timers.run()
    broker.send()
    assert (len(broker.tries), len(broker.told)) == (5, 2)
    broker.send("other")  # of which nothing is known
    assert broker.timers.run() == 0.25
    broker.send()
    assert [type(error) for error in broker.told] == [EventNacked, EventNacked, type(None), type(None)]
    broker.refusals = 9
    broker.send()
    assert broker.timers.run() == 0.25


def test_one_that_nobody_waits_for_any_more_is_not_sent_again() -> None:
    broker = Broker()
    publication = broker.send()
    publication.state = State.DONE
    broker.timers.run()
    assert (len(broker.tries), broker.told) == (1, [])


def test_a_channel_is_replaced_after_a_refusal_unless_it_is_very_young() -> None:
    broker, now = Broker(), time.monotonic()
    assert not broker.nacks.have_spoiled(now - 1.0)
    broker.send()
    assert broker.nacks.have_spoiled(now - 1.0)
    assert not broker.nacks.have_spoiled(time.monotonic()), "it was opened after the refusal"

    def is_kept() -> bool:
        broker, opened = Broker(), time.monotonic()
        broker.send()
        return not broker.nacks.have_spoiled(opened)

    wait_until(is_kept, what="a young one is kept")  # not each time: this process may stand still
