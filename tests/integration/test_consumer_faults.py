"""What a line can do to a consumer: resets, silence, half a connection, slowness. Each time the ledger is drawn up.

The lines have a heartbeat of one second, so that silence is noticed in two to three; with the default of 20 s it takes
25 to 30. The broker takes two to three heartbeats.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika.exceptions
import pytest

from domain_events import Receiver, Sender
from domain_events.oversight import Oversight
from domain_events.settings import configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.consumer import Consumer
from domain_events.transport.settlement import Ack
from tests.brokers import Broker, Queues
from tests.consuming import Consuming, Seen, consuming
from tests.ledger import Ledger, Worker
from tests.relay import Link, Relay, relay
from tests.waiting import wait_until

DELAY = 200
"""Milliseconds, of the retries."""

SOON = 20.0
"""Seconds in which a silent line is noticed, with room for a slow machine; with the default heartbeat it is not."""

LONG_LOGIN = "?connection_timeout=300000"
"""For what must not be waited for: longer than any test waits."""


class Scene:
    """A receiver behind a wire, and what was sent to it."""

    def __init__(self, wire: Relay, queues: Queues, url: str, unique: str) -> None:
        self.wire = wire
        self.worker = Worker(DELAY / 1000)
        self.name = queues.forget_after(unique + "r", DELAY)
        self.key = unique + "key"
        self.sent: list[tuple[str, int]] = []
        self.ledger = Ledger(queues, self.name, DELAY)
        self._queues = queues
        self._sender = Sender(url)
        self._declared = 0

    def send(self, *kinds: str) -> None:
        events = [(kind, len(self.sent) + n) for n, kind in enumerate(kinds)]
        self.sent += events
        self._sender.send_many([(self.key, list(event)) for event in events])

    @contextlib.contextmanager
    def consuming_by(self, receiver: Receiver) -> Iterator[None]:
        """Both connections of the consumer are there, and idle."""
        receiver.declare()
        self._declared = len(self.wire.links)  # before the consumer's thread can open its own
        with consuming(receiver):
            self.send("retry")
            self.worker.wait_handled(1)
            self.wait_acked(1, 2)  # the original takes a second: its retry queue is young
            yield

    def wait_acked(self, *tags: int) -> None:
        wait_until(lambda: {*tags} <= self.consuming.acked(), what=f"acks of {tags}")

    @property
    def consuming(self) -> Link:
        return self.wire.links[self._declared]

    @property
    def copying(self) -> Link:
        return self.wire.links[self._declared + 1]

    def wait_reconnected(self, links: int) -> float:
        """Until there are more links than that. Returns how long it took."""
        began = time.monotonic()
        wait_until(lambda: len(self.wire.links) > links, what="a new connection")
        return time.monotonic() - began

    def wait_all(self, duplicates: int = 0) -> None:
        """Until everything was handled, and so many events once more."""

        def handled() -> bool:
            return {*self.worker.handled} >= {*self.sent} and len(self.worker.handled) >= len(self.sent) + duplicates

        wait_until(handled, what="everything handled")
        self._queues.wait_count(self.name, 0)

    def balance(self) -> int:
        return self.ledger.balance(self.sent, self.worker.handled)


@pytest.fixture
def scene(broker: Broker, queues: Queues, unique: str) -> Iterator[Scene]:
    with relay(broker.url) as wire:
        made = Scene(wire, queues, broker.url, unique)
        receiver = Receiver(wire.url + "?heartbeat=1")
        receiver.register(made.worker, made.name, [made.key], max_retries=1)
        with made.consuming_by(receiver):
            yield made
            made.worker.go_on.set()


@pytest.mark.parametrize("which", ["consuming", "copying"])
@pytest.mark.parametrize("when", ["idle", "in mid-handler", "in mid-copy"])
def test_a_connection_that_is_reset_loses_nothing(scene: Scene, which: str, when: str) -> None:
    link: Link = getattr(scene, which)
    duplicates = 0
    if when == "in mid-handler":
        scene.send("slow", "plain")
        scene.worker.wait_begun(3)
        duplicates = which == "consuming"  # the one in hand
    if when == "in mid-copy":
        scene.copying.hold(down=True)  # the copy is confirmed, and nobody knows
        scene.send("retry", "plain")
        scene.worker.wait_handled(3)
        scene.wait_acked(4, 5)  # all but the original
        duplicates = 1
    links = len(scene.wire.links)
    link.reset()
    if which == "consuming":
        scene.wait_reconnected(links)
    scene.copying.let_go()
    scene.worker.go_on.set()
    scene.send("plain", "retry")
    scene.wait_all(duplicates)
    assert scene.balance() == duplicates


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_a_line_that_goes_dead_is_noticed_and_only_what_was_in_hand_comes_again(scene: Scene, way: str) -> None:
    scene.send("slow", "plain", "retry")
    scene.worker.wait_begun(3)
    links = len(scene.wire.links)
    scene.consuming.hold(up=way != "down", down=way != "up")
    assert scene.wait_reconnected(links) < SOON
    scene.worker.go_on.set()
    scene.send("plain")
    scene.wait_all(1)
    assert scene.balance() == 1


def test_a_line_for_copies_that_goes_dead_delays_the_copies_and_nothing_else(scene: Scene) -> None:
    links = len(scene.wire.links)
    scene.copying.hold(up=True, down=True)
    scene.send("retry", "plain")
    scene.worker.wait_handled(2)  # the plain one
    assert scene.wait_reconnected(links) < SOON
    scene.wait_all()
    assert scene.balance() == 0


def test_a_partition_while_a_handler_runs_costs_one_duplicate(scene: Scene) -> None:
    scene.send("slow", "plain", "retry", "dead")
    scene.worker.wait_begun(3)
    links = list(scene.wire.links)
    scene.wire.deaf = True
    for link in links:
        link.hold(up=True, down=True)
    scene.wait_reconnected(len(links))  # tries to, in vain
    scene.worker.go_on.set()
    wait_until(lambda: ("slow", 1) in scene.worker.handled, what="the handler's end")
    scene.wire.deaf = False
    for link in scene.wire.links:
        link.let_go()
    scene.send("plain")
    wait_until(lambda: scene.worker.begun.count(("slow", 1)) == 2, what="the event once more")
    wait_until(lambda: {("plain", 2), ("retry", 3), ("plain", 5)} <= {*scene.worker.handled}, what="the others")
    wait_until(lambda: ("dead", 4) in scene.worker.begun, what="the dead one")


def test_a_broker_that_has_forgotten_the_consumer_is_noticed_by_the_heartbeats(scene: Scene) -> None:
    scene.send("slow", "plain")
    scene.worker.wait_begun(3)
    links = len(scene.wire.links)
    scene.consuming.forget_client()
    scene.consuming.let_go()
    assert scene.wait_reconnected(links) < SOON
    scene.worker.go_on.set()
    scene.wait_all(1)
    assert scene.balance() == 1


def test_what_a_broker_keeps_for_a_consumer_that_has_forgotten_it_comes_when_it_misses_the_heartbeats(
    scene: Scene,
) -> None:
    scene.send("slow", "plain")
    scene.worker.wait_begun(3)
    scene.consuming.forget_broker()
    scene.worker.go_on.set()
    scene.send("plain")  # is not kept up by the others
    wait_until(lambda: ("plain", 3) in scene.worker.handled, what="the event that came later")
    scene.wait_all(1)
    assert scene.balance() == 1


def test_a_slow_line_loses_and_duplicates_nothing(broker: Broker, queues: Queues, unique: str) -> None:
    with relay(broker.url) as wire:
        scene = Scene(wire, queues, broker.url, unique)
        receiver = Receiver(wire.url + "?heartbeat=4")
        receiver.register(scene.worker, scene.name, [scene.key], max_retries=1)
        with scene.consuming_by(receiver):
            scene.consuming.delay = scene.copying.delay = 0.5
            scene.send("plain", "retry", "dead")
            wait_until(lambda: len(scene.worker.handled) == 3, what="the retry handled")
            queues.wait_count(scene.name + ":dead", 1)
            # The acks are on their way still: a stop waits for the broker's goodbye, which comes after them.
        assert len(wire.links) == 3  # one of declare(), and the two
    assert scene.balance() == 0


# Nodes that are there and say nothing


def test_a_node_that_takes_connections_and_says_nothing_does_not_hold_up_the_others(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, key, seen = queues.forget_after(unique + "r"), unique + "key", Seen()
    with relay(broker.url) as good, relay(broker.url) as silent:
        silent.deaf = True
        receiver = Receiver([silent.url + LONG_LOGIN, good.url + LONG_LOGIN])
        receiver.register(seen, name, [key])
        receiver.declare()
        sender = Sender(broker.url)
        with consuming(receiver):
            sender.send(key, 0)
            seen.wait(1)
            for n in range(1, 3):  # each begins with either of them
                good.cut()
                sender.send(key, n)
                # Long before the silent one is given up. What came before may come again: perhaps its ack was cut off.
                wait_until(lambda n=n: n in seen.data, what=f"event {n}")  # type: ignore[misc]
    assert {*seen.data} == {0, 1, 2}


def test_a_stop_leaves_logins_behind_that_nobody_answers(broker: Broker, queues: Queues, unique: str) -> None:
    with relay(broker.url) as one, relay(broker.url) as other:
        one.deaf = other.deaf = True
        receiver = Receiver([one.url + LONG_LOGIN, other.url + LONG_LOGIN])
        receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
        running = Consuming(receiver)
        wait_until(lambda: one.links and other.links, what="an attempt at each")
        running.stop()  # long before either is given up
        assert running.error is None


# What others do to its queues


def test_a_queue_that_somebody_else_declares_otherwise_stops_its_receiver_alone_until_it_is_gone(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, other = queues.forget_after(unique + "r"), queues.forget_after(unique + "other")
    seen, undisturbed = Seen(), Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.register(undisturbed, other, [unique + "other"])
    receiver.declare()
    sender = Sender(broker.url)

    def declared_otherwise() -> bool:
        queues.delete(name)
        try:
            queues.channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
        except pika.exceptions.ChannelClosedByBroker:  # the receiver was quicker
            return False
        return True

    with consuming(receiver):
        sender.send(unique + "key", 1)
        seen.wait(1)
        wait_until(declared_otherwise, what="another queue in its place")
        wait_until(lambda: f"queue '{name}' exists with another 'x-" in caplog.text, what="the reason in the log")
        for n in range(5):
            sender.send(unique + "other", n)
        undisturbed.wait(5)
        queues.delete(name)
        wait_until(lambda: sender.send(unique + "key", 2) and len(seen.events) > 1, what="an event", pause=0.2)
    assert undisturbed.data == list(range(5))
    assert f"receiver {other} does not consume" not in caplog.text


# A consumer on its own


class Told:
    """A listener that counts."""

    def __init__(self) -> None:
        self.times = 0
        self.reasons: list[str] = []

    def consuming(self) -> None:
        self.times += 1

    def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)


class Running:
    """A consumer that acks all that it gets, without the rest of the library."""

    def __init__(self, receiver: Receiver, url: str, **options: Any) -> None:
        brokers = configured_brokers(url, "consumer")
        assert brokers is not None
        self.told, self.stop, self.receivers = Told(), Stop(), list[str]()
        self.consumer = Consumer(receiver.registrations, brokers, stop=self.stop, listener=self.told, **options)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Running:
        self.consumer.start()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.request()
        self._thread.join(30)
        self.consumer.close()
        self.stop.close()
        assert not self._thread.is_alive()

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(condition, what=what)

    def _run(self) -> None:
        while (delivery := self.consumer.take()) is not None:
            self.consumer.begin(delivery)
            self.receivers.append(delivery.registration.name)
            self.consumer.settle(delivery, Ack())


def test_a_broker_that_opens_no_channel_is_left_and_found_again(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    with relay(broker.url) as wire:
        wire.hold_down_at = struct.pack(">HH", 20, 11)  # channel.open-ok
        with Running(receiver, wire.url + "?heartbeat=30", patience=2.0) as running:
            wait_until(lambda: wire.links and wire.links[0].is_held, what="a channel that does not open")
            wire.hold_down_at = None
            running.wait(lambda: running.told.times == 1, "it consumes")
    assert len(wire.links) == 2
    assert any("has not answered for 2 s; connecting again" in message for message in caplog.messages)


@contextlib.contextmanager
def renewing(broker: Broker, queues: Queues, unique: str) -> Iterator[tuple[Running, str]]:
    exchange = queues.forget_exchange_after(unique + "exchange")
    receiver = Receiver(broker.url, exchange)
    receiver.register(Seen(), queues.forget_after(unique + "a"), [unique + "key", unique + "other.#"])
    receiver.register(Seen(), queues.forget_after(unique + "b"), [unique + "key"])
    with Running(receiver, broker.url, renewed_every=0.3) as running:
        running.wait(lambda: running.told.times == 1, "it consumes")
        yield running, exchange
    assert running.consumer.error is None


def test_an_exchange_that_is_deleted_is_declared_and_bound_again_and_the_log_says_so(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    with renewing(broker, queues, unique) as (running, exchange):
        queues.channel.exchange_delete(exchange)
        running.wait(lambda: f"exchange {exchange} was deleted" in caplog.text, "the warning")
        wait_until(lambda: routes(queues, exchange, unique + "other.one"), what="the second key bound")

        def both_bound() -> bool:
            return routes(queues, exchange, unique + "key") and {*running.receivers} == {unique + "a", unique + "b"}

        wait_until(both_bound, what="both receivers bound")
    assert running.told.reasons == []  # nobody had to stop for it


def test_an_exchange_that_its_sender_declares_anew_is_bound_again(broker: Broker, queues: Queues, unique: str) -> None:
    with renewing(broker, queues, unique) as (running, exchange):
        queues.channel.exchange_delete(exchange)
        queues.channel.exchange_declare(exchange, "topic", durable=True)
        wait_until(lambda: routes(queues, exchange, unique + "other.one"), what="bound again")
        running.wait(lambda: running.receivers, "an event")


def test_an_exchange_that_comes_back_as_another_one_is_reported_once(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    with renewing(broker, queues, unique) as (running, exchange):
        queues.channel.exchange_delete(exchange)
        queues.channel.exchange_declare(exchange, "direct", durable=True)
        running.wait(lambda: "asked for topic, there is direct" in caplog.text, "the warning")
        time.sleep(1.0)  # three rounds more
        queues.channel.exchange_delete(exchange)
        wait_until(lambda: routes(queues, exchange, unique + "key"), what="bound again")
    assert caplog.text.count("asked for topic, there is direct") <= 2  # of each receiver


def routes(queues: Queues, exchange: str, key: str) -> bool:
    """Whether an event finds a queue. Each call sends one."""
    try:
        queues.channel.basic_publish(exchange, key, b"{}", mandatory=True)
    except (pika.exceptions.UnroutableError, pika.exceptions.ChannelClosedByBroker):  # no binding, or no exchange
        return False
    return True


def test_an_error_of_ours_in_the_io_thread_ends_the_consumer_and_the_events_come_again(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [key])
    receiver.declare()
    Sender(broker.url).send_many([(key, n) for n in range(3)])
    brokers = configured_brokers(broker.url, "consumer")
    assert brokers is not None
    stop, oops, failing = Stop(), NameError("oops"), threading.Event()

    def beat() -> None:
        if failing.is_set():
            raise oops

    overseer = Oversight(forced=lambda _busy: None, judge=lambda _event_id: None, beat=beat, beat_every=0.1)
    consumer = Consumer(receiver.registrations, brokers, stop=stop, listener=Told(), oversight=overseer)
    consumer.start()
    taken = consumer.take()
    assert taken is not None
    consumer.begin(taken)
    failing.set()
    while consumer.take() is not None:  # those that were prefetched
        pass
    assert consumer.error is oops
    consumer.settle(taken, Ack())  # too late, and harmless
    consumer.close()
    stop.close()
    queues.wait_count(name, 3)
