"""The publisher of copies and a broker that takes what it is given and answers nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pika
import pytest

from domain_events import BrokerError
from domain_events.settings import configured_brokers
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.topology import Queue
from tests.brokers import Broker, Queues
from tests.relay import Relay, relay
from tests.waiting import wait_until

SILENCE = 2.0
"""Seconds that are borne. More than a slow machine needs to declare a queue: its connection must be kept."""


class Publishing:
    """A publisher in an I/O thread, and what it said about each publication."""

    def __init__(self, url: str) -> None:
        brokers = configured_brokers(url, "consumer")
        assert brokers is not None
        self.said: list[tuple[str, BrokerError | None]] = []
        self.crashes: list[BaseException] = []
        self._io = IOThread("de-test", self.crashes.append)
        self._publisher = Publisher(self._io, brokers, name="test", longest_silence=SILENCE)
        self._io.start()

    def submit(self, queue: str, body: bytes) -> None:
        publication = Publication(
            exchange="",
            routing_key=queue,
            properties=pika.BasicProperties(delivery_mode=2),
            body=body,
            mandatory=True,
            needs=Queue(queue, {"x-queue-type": "quorum"}),
            done=lambda error: self.said.append((body.decode(), error)),
        )
        self._io.call(partial(self._publisher.submit, publication))

    def close(self) -> None:
        closed = threading.Event()
        self._io.call(lambda: self._publisher.close(closed.set))
        assert closed.wait(60)
        self._io.stop()
        assert self.crashes == []


@pytest.fixture
def wire(broker: Broker) -> Iterator[Relay]:
    with relay(broker.url) as made:
        yield made


@pytest.fixture
def publishing(wire: Relay) -> Iterator[Publishing]:
    publishing = Publishing(wire.url)
    yield publishing
    publishing.close()


def test_a_connection_that_answers_nothing_is_given_up_and_the_copy_goes_over_another(
    wire: Relay, publishing: Publishing, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = queues.forget_after(unique + "a")
    publishing.submit(queue, b"first")
    wait_until(lambda: publishing.said == [("first", None)], what="the first confirm")
    wire.links[0].hold(down=True)
    publishing.submit(queue, b"second")
    wait_until(lambda: publishing.said[1:] == [("second", None)], what="the second confirm")
    assert len(wire.links) == 2
    assert f"has not answered for {SILENCE:g} s about {queue}" in caplog.text
    queues.wait_count(queue, 3)  # the confirm was lost, not the copy


def test_a_broker_that_is_silent_because_nothing_is_asked_keeps_its_connection(
    wire: Relay, publishing: Publishing, queues: Queues, unique: str
) -> None:
    queue = queues.forget_after(unique + "a")
    for n in range(3):
        publishing.submit(queue, b"%d" % n)
        wait_until(lambda n=n: len(publishing.said) == n + 1, what="the confirm")
        threading.Event().wait(SILENCE + 0.5)  # longer than the silence that is borne
    assert len(wire.links) == 1


def test_a_queue_that_is_not_answered_for_does_not_hold_up_the_copies_for_others(
    wire: Relay, publishing: Publishing, queues: Queues, unique: str
) -> None:
    first, good, bad = (queues.forget_after(unique + name) for name in ("first", "good", "bad"))
    publishing.submit(first, b"first")
    wait_until(lambda: len(publishing.said) == 1, what="the first confirm")
    wire.links[0].hold(down=True)
    for n in range(3):
        publishing.submit(bad, b"bad %d" % n)
        publishing.submit(good, b"good %d" % n)
    wait_until(lambda: len(publishing.said) == 7, what="all confirms")
    order = [what for what, error in publishing.said[1:] if error is None]
    assert order == ["good 0", "good 1", "good 2", "bad 0", "bad 1", "bad 2"]


def test_after_a_confirm_the_patience_is_as_it_was_at_first(
    wire: Relay, publishing: Publishing, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = queues.forget_after(unique + "a")
    publishing.submit(queue, b"first")
    wait_until(lambda: len(publishing.said) == 1, what="the first confirm")
    wire.links[0].hold(down=True)
    publishing.submit(queue, b"second")
    wait_until(lambda: f"for {SILENCE:g} s" in caplog.text, what="the first complaint")
    wait_until(lambda: len(wire.links) == 2, what="another connection")
    wait_until(lambda: len(publishing.said) == 2, what="the second confirm")
    wire.links[1].hold(down=True)
    publishing.submit(queue, b"third")
    wait_until(lambda: caplog.text.count(f"for {SILENCE:g} s") == 2, what="patience as at first, after a confirm")
    wait_until(lambda: len(publishing.said) == 3, what="the third confirm")
