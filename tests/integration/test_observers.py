"""Observers on a real broker: everything that is sent and received is told once, in every way that there is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain_events import (
    ConnectionFailed,
    DomainEvent,
    NullObserver,
    PartlySent,
    Receiver,
    Retry,
    Sender,
    Unroutable,
    UnsendableData,
    send_domain_event,
    send_domain_events,
)
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.forking import fork, status_of
from tests.observing import Noted, Raises, observing
from tests.waiting import wait_until


@pytest.fixture
def noted() -> Iterator[Noted]:
    with observing(Noted()) as noted:
        yield noted


def nobody_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"amqp://guest:guest@127.0.0.1:{closed.getsockname()[1]}/%2F"


# Sending


def send_one(way: str, sender: Sender, key: str, timeout: float = 60.0) -> None:
    """In one of the ways that there are."""
    match way:
        case "send":
            sender.send(key, 1, timeout=timeout)
        case "send_many":
            sender.send_many([(key, 1)], timeout=timeout)
        case "send_async":
            asyncio.run(sender.send_async(key, 1, timeout=timeout))
        case "send_many_async":
            asyncio.run(sender.send_many_async([(key, 1)], timeout=timeout))


WAYS = ("send", "send_many", "send_async", "send_many_async")


@pytest.mark.parametrize("way", WAYS)
def test_a_confirmed_event_is_told_once_with_its_time(way: str, broker: Broker, unique: str, noted: Noted) -> None:
    send_one(way, Sender(broker.url), unique + "key")
    assert [event.routing_key for (event,) in noted["sent"]] == [unique + "key"]
    assert noted["send_failed"] == []
    assert all(seconds > 0 for seconds in noted.seconds)


@pytest.mark.parametrize("way", WAYS)
def test_an_event_that_is_not_confirmed_is_told_with_its_error(way: str, unique: str, noted: Noted) -> None:
    with pytest.raises((ConnectionFailed, PartlySent)):
        send_one(way, Sender(nobody_listens()), unique + "key", timeout=0.5)
    [(event, error)] = noted["send_failed"]
    assert event.routing_key == unique + "key"
    assert isinstance(error, ConnectionFailed)
    assert noted["sent"] == []


def test_the_functions_tell_as_senders_do(broker: Broker, unique: str, noted: Noted) -> None:
    one = send_domain_event(unique + "key", 1, connection_settings=broker.url)
    many = send_domain_events([(unique + "key", n) for n in range(50)], connection_settings=broker.url)
    assert [event for (event,) in noted["sent"]] == [one, *many]


def test_of_many_each_is_told_what_became_of_it(broker: Broker, queues: Queues, unique: str, noted: Noted) -> None:
    queues.declare_watch(unique + "heard")
    events = [DomainEvent(unique + ("heard" if n % 2 else "nobody"), n) for n in range(10)]
    with pytest.raises(PartlySent) as partly:
        Sender(broker.url).send_many(events, mandatory=True)
    assert [event for (event,) in noted["sent"]] == events[1::2]
    assert [event for event, _ in noted["send_failed"]] == partly.value.unconfirmed == events[::2]
    assert {type(error) for _, error in noted["send_failed"]} == {Unroutable}


def test_a_send_that_is_cancelled_is_told_as_not_confirmed(unique: str, noted: Noted) -> None:
    async def send() -> None:
        sending = asyncio.ensure_future(Sender(nobody_listens()).send_async(unique + "key", 1, timeout=30))
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.wait([sending])

    asyncio.run(send())
    [(_, error)] = noted["send_failed"]
    assert isinstance(error, asyncio.CancelledError)


def test_what_is_refused_or_offline_or_nothing_is_not_told(broker: Broker, unique: str, noted: Noted) -> None:
    with pytest.raises(UnsendableData):
        Sender(broker.url).send(unique + "key", object())
    with pytest.raises(ValueError, match="wildcard"):
        Sender(broker.url).send("user.*", 1)
    Sender(None).send(unique + "key", 1)
    Sender(None).send_many([(unique + "key", 1)])
    Sender(broker.url).send_many([])
    assert noted.words == []


def test_what_observers_raise_harms_no_send(broker: Broker, queues: Queues, unique: str) -> None:
    queue = queues.declare_watch(unique + "key")
    with observing(Raises(ValueError("x"))), observing(Raises(SystemExit(1))), observing(Noted()) as noted:
        event = Sender(broker.url).send(unique + "key", 1)
        with pytest.raises(ConnectionFailed):
            Sender(nobody_listens()).send(unique + "key", 1, timeout=0.2)
    assert [name for name, *_ in noted.words] == ["sent", "send_failed"]
    message = queues.get(queue)
    assert message is not None
    assert DomainEvent.from_json(message[2]) == event


def test_a_forked_process_tells_the_observers_of_its_parent(broker: Broker, unique: str, noted: Noted) -> None:
    reading, writing = os.pipe()

    def live() -> None:
        Sender(broker.url).send(unique + "key", 1)
        os.write(writing, json.dumps([event.data for (event,) in noted["sent"]]).encode())

    assert status_of(fork(live)) == 0
    os.close(writing)
    with os.fdopen(reading) as told:
        assert json.load(told) == [1]
    assert noted.words == []


# Receiving


class Kind:
    """A kind of receiver: its arguments, and what makes its handler of a plain one."""

    def __init__(self, *, is_async: bool = False, **given: Any) -> None:
        self.given = given
        self._is_async = is_async

    def handler(self, handle: Callable[[DomainEvent], None]) -> Callable[[DomainEvent], Any]:
        async def handle_async(event: DomainEvent) -> None:
            await asyncio.sleep(0)
            handle(event)

        return handle_async if self._is_async else handle


KINDS = {"plain": Kind(), "threads": Kind(threads=4), "coroutines": Kind(is_async=True, concurrency=4)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_receiver_tells_what_becomes_of_its_events(
    kind: str, broker: Broker, queues: Queues, unique: str, noted: Noted
) -> None:
    name = queues.forget_after(unique + "r", 100)
    error = ValueError("x")

    def handle(event: DomainEvent) -> None:
        if event.data == "bad":
            raise error
        if event.data == "again" and not event.retries:
            raise Retry(0.1)

    receiver = Receiver(broker.url)
    receiver.register(KINDS[kind].handler(handle), name, [unique + "key"], max_retries=1, **KINDS[kind].given)
    receiver.declare()
    good, bad, again = Sender(broker.url).send_many([(unique + "key", data) for data in ("good", "bad", "again")])
    with consuming(receiver):
        wait_until(lambda: len(noted["handled"]) == 2, what="two handled")
        queues.wait_count(f"{name}:dead", 1)
    assert noted.words.count(("consuming",)) == 1
    assert told_of(good, noted) == [("sent",), ("started", name), ("handled", name)]
    assert told_of(bad, noted) == [
        ("sent",),
        ("started", name),
        ("failed", name, error, "the handler raised ValueError"),
        ("dead_lettered", name, "the handler raised ValueError", False),
    ]
    sent, started, failed, retried, *then = told_of(again, noted)
    assert (sent, started, retried) == (("sent",), ("started", name), ("retried", name, 0.1))
    assert (failed[1], type(failed[2]), failed[3]) == (name, Retry, "the handler asked for a retry")
    assert then == [("started", name), ("handled", name)]


def told_of(event: DomainEvent, noted: Noted) -> list[tuple[Any, ...]]:
    """All that is told of one event, without it."""
    return [tuple(each for each in word if each != event) for word in noted.words if event in word]


def test_a_consumer_tells_who_was_registered_when_it_began(broker: Broker, queues: Queues, unique: str) -> None:
    name, seen = queues.forget_after(unique + "r"), Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    with observing(Noted()) as early, consuming(receiver):
        wait_until(lambda: early["consuming"], what="the consumer")
        with observing(Noted()) as late:
            Sender(broker.url).send(unique + "key", 1)
            seen.wait(1)
            wait_until(lambda: early["handled"], what="the early one told")
            assert [name for name, *_ in late.words] == ["sent"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_observers_raise_harms_no_event(kind: str, broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 100)

    def fail_at_first(event: DomainEvent) -> None:
        if not event.retries:
            raise Retry(0.1)

    seen = Seen(fail_at_first)
    receiver = Receiver(broker.url)
    receiver.register(KINDS[kind].handler(seen), name, [unique + "key"], max_retries=1, **KINDS[kind].given)
    with observing(Raises(ValueError("x"))), observing(Noted()) as noted, observing(Raises(SystemExit(1))):
        with consuming(receiver):
            wait_until(lambda: noted["consuming"], what="the consumer")
            Sender(broker.url).send(unique + "key", 1)
            wait_until(lambda: noted["handled"], what="the event handled")
        assert seen.retries == [0, 1]
    queues.wait_count(name, 0)
    assert queues.count(f"{name}:dead") == 0


def test_an_observer_may_send(broker: Broker, queues: Queues, unique: str) -> None:
    name, queue = queues.forget_after(unique + "r"), queues.declare_watch(unique + "alarm")

    class Alarms(NullObserver):
        def dead_lettered(
            self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
        ) -> None:
            Sender(broker.url).send(unique + "alarm", reason)

    def handle(event: DomainEvent) -> None:
        raise ValueError

    receiver = Receiver(broker.url)
    receiver.register(handle, name, [unique + "key"])
    receiver.declare()
    with observing(Alarms()), consuming(receiver):
        Sender(broker.url).send(unique + "key", 1)
        queues.wait_count(queue, 1)
    queues.wait_count(f"{name}:dead", 1)


def test_observers_are_told_where_handlers_run(broker: Broker, queues: Queues, unique: str) -> None:
    name, threads = queues.forget_after(unique + "r"), set[str]()
    barrier = threading.Barrier(2)

    def handle(event: DomainEvent) -> None:
        barrier.wait(20)  # both threads have an event
        threads.add(threading.current_thread().name)

    class Where(NullObserver):
        def __init__(self) -> None:
            self.threads: set[str] = set()
            self.handled_events = 0

        def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
            self.threads.add(threading.current_thread().name)
            self.handled_events += 1

    receiver = Receiver(broker.url)
    receiver.register(handle, name, [unique + "key"], threads=2)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(2)])
    with observing(Where()) as where, consuming(receiver):
        wait_until(lambda: where.handled_events == 2, what="both handled")
    assert where.threads == threads
    assert len(threads) == 2
