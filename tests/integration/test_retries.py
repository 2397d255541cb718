"""Retries on a real broker: each comes back after its own delay, to the receiver that asked for it, and is counted."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from domain_events import Backoff, DeadLetter, DomainEvent, Receiver, Retry, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Consuming, Seen, consuming
from tests.waiting import wait_until


def fail_with(make: Callable[[DomainEvent], BaseException], times: int = 10**9) -> Callable[[DomainEvent], None]:
    """A handler that raises `make(event)` on the first `times` deliveries of each event."""

    def handle(event: DomainEvent) -> None:
        if event.retries < times:
            raise make(event)

    return handle


def test_a_retry_never_waits_behind_a_longer_one(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 8000, 500)

    def handle(event: DomainEvent) -> None:
        if event.retries == 0:
            raise Retry(8.0 if event.data == "A" else 0.5)

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    with consuming(receiver):
        Sender(broker.url).send(unique + "key", "A")
        seen.wait(1)
        queues.wait_count(f"{name}:retry:8000", 1)
        Sender(broker.url).send(unique + "key", "B")
        seen.wait(3)
        assert queues.count(f"{name}:retry:8000") == 1  # B is back, A still waits
        seen.wait(4)
    assert seen.data == ["A", "B", "B", "A"]
    assert seen.retries == [0, 0, 1, 1]


def test_retries_are_counted_from_zero_and_the_delays_are_those_asked_for(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r", 1000, 200, 40)
    times: list[float] = []

    def handle(event: DomainEvent) -> None:
        times.append(time.monotonic())
        raise Retry(0.04 * 5.0**event.retries)  # 0.04 s, 0.2 s, 1 s

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=3)
    receiver.declare()
    Sender(broker.url).send(unique + "key", "x")
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    assert seen.retries == [0, 1, 2, 3]
    for begun, again, delay in zip(times, times[1:], (0.04, 0.2, 1.0), strict=False):
        assert again - begun >= delay * 0.95  # never earlier; the broker's clock is not ours
    for ms in (40, 200, 1000):
        assert queues.count(f"{name}:retry:{ms}") == 0


def test_the_documented_delays_lead_to_queues_of_these_delays(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 1000, 5000, 25000)
    receiver = Receiver(broker.url)
    receiver.register(Seen(fail_with(lambda event: Retry(5.0**event.retries))), name, [unique + "key"], max_retries=3)
    receiver.declare()
    for retries in range(3):
        queues.publish(
            unique + "key",
            b'{"routing_key": "a.b", "data": 1}',
            properties=pika.BasicProperties(headers={"domain-events-retries": retries}),
        )
    with consuming(receiver):
        # How many are there now depends on when one looks: those of the shorter delays go on to the longer ones.
        for ms in (1000, 5000, 25000):
            wait_until(lambda ms=ms: queues.count(f"{name}:retry:{ms}") is not None, what=f"a delay of {ms} ms")  # type: ignore[misc]
        wait_until(lambda: queues.count(f"{name}:retry:25000"), what="an event that waits")


def test_a_retry_without_a_delay_waits_as_long_as_the_backoff_says(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 30000, 20, 60, 180)
    slow, fast = Seen(fail_with(lambda _: Retry())), Seen(fail_with(lambda _: Retry()))
    receiver = Receiver(broker.url)
    receiver.register(slow, name, [unique + "slow"], max_retries=3, backoff=Backoff(first=30.0, jitter=0.0))
    other = queues.forget_after(unique + "other", 20, 60, 180)
    backoff = Backoff(first=0.02, factor=3.0, jitter=0.0)
    receiver.register(fast, other, [unique + "fast"], max_retries=3, backoff=backoff)
    receiver.declare()
    Sender(broker.url).send(unique + "slow", 1)
    Sender(broker.url).send(unique + "fast", 1)
    with consuming(receiver):
        queues.wait_count(f"{name}:retry:30000", 1)
        queues.wait_count(other + ":dead", 1)
    assert fast.retries == [0, 1, 2, 3]
    for ms in (20, 60, 180):
        assert queues.count(f"{other}:retry:{ms}") == 0


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


def test_errors_in_retry_on_are_retried_and_others_are_not(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)
    errors: dict[str, BaseException] = {
        "flaky": Flaky(),
        "very": VeryFlaky(),
        "timeout": TimeoutError(),
        "value": ValueError(),
    }
    seen = Seen(fail_with(lambda event: errors[event.data]))
    receiver = Receiver(broker.url)
    receiver.register(
        seen,
        name,
        [unique + "key"],
        max_retries=2,
        retry_on=(Flaky, TimeoutError),
        backoff=Backoff(first=0.01, factor=1.0, jitter=0.0),
    )
    receiver.declare()
    for what in errors:
        Sender(broker.url).send(unique + "key", what)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 4)
    for what in errors:
        retries = [event.retries for event in seen.events if event.data == what]
        assert retries == ([0] if what == "value" else [0, 1, 2]), what


def test_a_retry_of_zero_seconds_comes_back_at_once(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen(fail_with(lambda _: Retry(0), times=3))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=3)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        seen.wait(4)
    assert seen.retries == [0, 1, 2, 3]
    assert queues.count(f"{name}:retry:0") is None
    queues.wait_count(name, 0)
    assert queues.count(name + ":dead") == 0


def test_a_retry_comes_back_only_to_the_receiver_that_asked_for_it(broker: Broker, queues: Queues, unique: str) -> None:
    asking = queues.forget_after(unique + "asking", 10)
    exchange = queues.forget_exchange_after(unique + "exchange")
    failing = Seen(fail_with(lambda _: Retry(0.01), times=2))
    content, everything = Seen(), Seen()
    receiver = Receiver(broker.url, exchange)
    receiver.register(failing, asking, [unique + "key"], max_retries=5)
    receiver.register(content, queues.forget_after(unique + "content"), [unique + "key"])
    # Not even to one that listens to everything: a retry does not go through the exchange.
    receiver.register(everything, queues.forget_after(unique + "everything"), ["#"])
    receiver.declare()
    sent = Sender(broker.url, exchange).send(unique + "key", 1)
    with consuming(receiver):
        failing.wait(3)
        content.wait(1)
        everything.wait(1)
        queues.wait_count(asking, 0)
    assert failing.retries == [0, 1, 2]
    assert content.retries == [0]
    assert everything.events == [sent]


def test_other_events_are_handled_while_a_retry_waits(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 60000)
    seen = Seen(fail_with(lambda _: Retry(60.0)))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1, prefetch=1)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(50)])
    with consuming(receiver):
        seen.wait(50)
        queues.wait_count(f"{name}:retry:60000", 50)
    assert seen.data == list(range(50))


def test_a_retried_event_is_the_same_event(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)
    seen = Seen(fail_with(lambda _: Retry(0.01), times=2))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=2)
    receiver.declare()
    sent = Sender(broker.url).send(unique + "key", {"a": [1, "ü"]}, 7, "an-id", 12.5)
    with consuming(receiver):
        assert seen.wait(3) == [sent, sent, sent]


def test_a_cloudevent_is_still_one_after_a_retry(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)
    seen = Seen(fail_with(lambda _: Retry(0.01), times=1))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    queues.publish(
        unique + "key",
        b'{"specversion": "1.0", "type": "a.b", "source": "/", "id": "c-1", "data": 5}',
        properties=pika.BasicProperties(content_type="application/cloudevents+json"),
    )
    with consuming(receiver):
        seen.wait(2)
    assert [(event.uuid_string, event.data, event.retries) for event in seen.events] == [("c-1", 5, 0), ("c-1", 5, 1)]


def test_what_waits_for_its_retry_keeps_its_place_and_its_count_while_the_receiver_is_down(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r", 300)
    receiver = Receiver(broker.url)

    def handle(event: DomainEvent) -> None:
        if event.retries == 0:
            receiver.stop_consuming()  # before it can come back
            raise Retry(0.3)

    seen = Seen(handle)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    receiver.start_consuming(timeout=60)
    queues.wait_count(name, 1)
    with consuming(receiver):
        seen.wait(2)
    assert seen.retries == [0, 1]


def test_a_receiver_that_is_not_durable_retries_too(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)
    seen = Seen(fail_with(lambda _: Retry(0.01), times=2))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=2, durable=False)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        seen.wait(3)
    assert seen.retries == [0, 1, 2]


def test_the_delays_of_a_jittered_backoff_share_a_few_queues(broker: Broker, queues: Queues, unique: str) -> None:
    name = unique + "r"
    allowed = [*range(900, 1000, 10), *range(1000, 1200, 100)]
    queues.forget_after(name, *allowed)
    seen = Seen(fail_with(lambda _: Retry(), times=1))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1, backoff=Backoff(first=1.0, factor=1.0, jitter=0.1))
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(100)])
    with consuming(receiver):
        seen.wait(200)
    queues.wait_count(name, 0)
    assert queues.count(name + ":dead") == 0


def test_a_retry_queue_that_was_deleted_is_declared_again(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)
    seen = Seen(fail_with(lambda _: Retry(0.01), times=1))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    with consuming(receiver):
        for n in range(3):
            Sender(broker.url).send(unique + "key", n)
            seen.wait(2 * (n + 1))
            queues.delete(f"{name}:retry:10")
    assert seen.retries == [0, 1] * 3
    assert queues.count(name + ":dead") == 0


def test_a_delay_beyond_the_longest_is_cut_with_a_warning(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    longest = 49 * 24 * 3600 * 1000
    name = queues.forget_after(unique + "r", longest)
    receiver = Receiver(broker.url)
    receiver.register(Seen(fail_with(lambda _: Retry(1e9))), name, [unique + "key"], max_retries=1)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        queues.wait_count(f"{name}:retry:{longest}", 1)
    assert any(record.levelno == logging.WARNING and "49 days" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan, math.inf, 10**400])
def test_a_delay_that_cannot_be_is_an_error_of_the_handler(
    broker: Broker, queues: Queues, unique: str, delay: Any
) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(fail_with(lambda _: Retry(delay))), name, [unique + "key"], max_retries=3)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    [(_, properties, _)] = queues.drain(name + ":dead")
    assert properties.headers["domain-events-error-type"] == "ValueError"
    assert "delay must be a finite number of seconds" in properties.headers["domain-events-error-message"]


def test_a_dead_letter_by_the_handler_is_not_retried(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen(fail_with(lambda _: DeadLetter("no such user")))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=3, retry_on=Exception)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    [(_, properties, _)] = queues.drain(name + ":dead")
    assert properties.headers["domain-events-reason"] == "no such user"
    assert seen.retries == [0]


def test_an_event_whose_retry_cannot_be_stored_stays_in_the_queue_and_stops_nobody(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r", 700)
    queues.channel.queue_declare(f"{name}:retry:700", durable=True)  # with other arguments
    seen = Seen(fail_with(lambda event: Retry(0.7 if event.data == "bad" else 0), times=1))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", what) for what in ("bad", "good", "good")])
    running = Consuming(receiver)
    seen.wait(5)
    wait_until(lambda: "cannot put an event into" in caplog.text, what="the complaint")
    running.stop()  # and does not wait until the retry queue is repaired
    assert running.error is None
    assert sorted(seen.data) == ["bad"] + ["good"] * 4
    queues.wait_count(name, 1)
    assert f"{name}:retry:700" in caplog.text
    queues.delete(f"{name}:retry:700")
    with consuming(receiver):
        seen.wait(7)
    assert [event.retries for event in seen.events if event.data == "bad"] == [0, 0, 1]


def test_an_event_whose_retry_could_not_be_stored_at_first_goes_on_when_that_is_repaired(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r", 700)
    queues.channel.queue_declare(f"{name}:retry:700", durable=True)
    seen = Seen(fail_with(lambda _: Retry(0.7), times=1))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        wait_until(lambda: "cannot put an event into" in caplog.text, what="the complaint")
        queues.delete(f"{name}:retry:700")
        seen.wait(2)
        queues.wait_count(name, 0)
    assert seen.retries == [0, 1]
