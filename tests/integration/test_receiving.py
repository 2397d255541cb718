"""A receiver on a real broker: what reaches its handler, what it shares, and how it stops."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pika
import pytest

from domain_events import BrokerRefused, ConnectionFailed, DomainEvent, Receiver, Retry, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Consuming, Seen, consuming
from tests.growing import whole_lines
from tests.processes import Processes
from tests.relay import relay
from tests.waiting import wait_until

CONSUMER = """
import os, sys, time
from domain_events import Receiver
url, name, key, seconds, prefetch = sys.argv[1:]
receiver = Receiver(url)
@receiver.handles(name, [key], prefetch=int(prefetch))
def handle(event):
    print("begun", event.data, flush=True)
    time.sleep(float(seconds))
    print("handled", event.data, flush=True)
receiver.start_consuming()
print("ended", flush=True)
"""


def consumer(url: str, name: str, key: str, seconds: float = 0.0, prefetch: int = 16) -> list[str]:
    return [sys.executable, "-c", CONSUMER, url, name, key, str(seconds), str(prefetch)]


def wait_consumers(queues: Queues, name: str, n: int = 1) -> None:
    """Until `n` consumers are subscribed: by then the bindings are there too."""

    def subscribed() -> bool:
        if queues.count(name) is None:
            return False
        return bool(queues.channel.queue_declare(name, passive=True).method.consumer_count == n)

    wait_until(subscribed, what=f"{n} consumers of {name}")


def test_events_sent_while_a_durable_receiver_is_down_are_handled_in_order_when_it_starts(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "printer")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "user.*"])
    receiver.declare()
    with consuming(receiver):  # it was there once
        Sender(broker.url).send(unique + "user.made", 0)
        seen.wait(1)
    for n in range(1, 6):
        Sender(broker.url).send(unique + "user.made", n)
    queues.wait_count(name, 5)
    with consuming(receiver):
        seen.wait(6)
    assert seen.data == [0, 1, 2, 3, 4, 5]
    queues.wait_count(name, 0)
    assert queues.count(name + ":dead") == 0


def test_a_receiver_may_start_before_any_sender_and_the_exchange_exist(
    broker: Broker, queues: Queues, unique: str
) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    name = queues.forget_after(unique + "early")
    seen = Seen()
    receiver = Receiver(broker.url, exchange)
    receiver.register(seen, name, "order.placed")
    with consuming(receiver):
        wait_consumers(queues, name)
        Sender(broker.url, exchange).send("order.placed", "hello", mandatory=True)
        seen.wait(1)
    assert seen.data == ["hello"]


def test_a_sender_may_start_before_any_receiver_and_declare_makes_the_events_wait(
    broker: Broker, queues: Queues, unique: str
) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    name = queues.forget_after(unique + "late")
    sender = Sender(broker.url, exchange)
    sender.send("order.placed", "nobody hears this")
    seen = Seen()
    receiver = Receiver(broker.url, exchange)
    receiver.register(seen, name, ["order.placed"])
    receiver.declare()
    sender.send("order.placed", "kept", mandatory=True)
    with consuming(receiver):
        seen.wait(1)
    assert seen.data == ["kept"]


def test_a_star_stands_for_one_word_and_a_hash_for_any_number(broker: Broker, queues: Queues, unique: str) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    stars, hashes, everything = Seen(), Seen(), Seen()
    receiver = Receiver(broker.url, exchange)
    receiver.register(stars, queues.forget_after(unique + "stars"), ["user.*.done"])
    receiver.register(hashes, queues.forget_after(unique + "hashes"), ["user.#"])
    receiver.register(everything, queues.forget_after(unique + "everything"), ["#"])
    receiver.declare()
    keys = ["user", "user.a.done", "user.a.b.done", "user.done", "other.a.done"]
    with Sender(broker.url, exchange) as sender:
        for key in keys:
            sender.send(key, key)
    with consuming(receiver):
        everything.wait(5)
        hashes.wait(4)
        stars.wait(1)
    assert stars.data == ["user.a.done"]
    assert hashes.data == keys[:4]
    assert everything.data == keys


def test_an_event_that_two_binding_keys_of_one_receiver_match_comes_once(
    broker: Broker, queues: Queues, unique: str
) -> None:
    seen = Seen()
    receiver = Receiver(broker.url)
    keys = [unique + "user.*", unique + "user.#", unique + "user.a"]
    receiver.register(seen, queues.forget_after(unique + "r"), keys)
    receiver.declare()
    sender = Sender(broker.url)
    sender.send(unique + "user.a", 1)
    sender.send(unique + "other", 2)  # not matched: another first word
    sender.send(unique + "user.b", 3)
    with consuming(receiver):
        seen.wait(2)
    assert seen.data == [1, 3]


def test_every_receiver_of_a_key_gets_the_event(broker: Broker, queues: Queues, unique: str) -> None:
    first, second = Seen(), Seen()
    one, other = Receiver(broker.url), Receiver(broker.url)
    one.register(first, queues.forget_after(unique + "first"), [unique + "key"])
    other.register(second, queues.forget_after(unique + "second"), [unique + "key"])
    one.declare()
    other.declare()
    sent = [Sender(broker.url).send(unique + "key", n) for n in range(3)]
    with consuming(one, other):
        assert first.wait(3) == sent
        assert second.wait(3) == sent


def test_what_was_sent_is_what_the_handler_gets(broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "r"), [unique + "key"])
    receiver.declare()
    data = {"text": "Grüße \U0001f600", "list": [1, 2.5, None, True], "nested": {"": []}}
    sent = Sender(broker.url).send(unique + "key", data, 42, "an-id", 1234567890.123456)
    with consuming(receiver):
        [event] = seen.wait(1)
    assert event == sent
    assert (event.data, event.domain_object_id) == (data, "42")
    assert (event.uuid_string, event.timestamp, event.retries) == ("an-id", 1234567890.123456, 0)


def test_two_processes_on_one_queue_share_its_events(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name = queues.forget_after(unique + "shared")
    command = consumer(broker.url, name, unique + "key", seconds=0.02, prefetch=1)
    both = [processes.start(command) for _ in range(2)]
    wait_consumers(queues, name, 2)
    with Sender(broker.url) as sender:
        sender.send_many([(unique + "key", n) for n in range(40)])

    def handled() -> list[list[str]]:
        return [[line for line in whole_lines(process.log) if line.startswith("handled")] for process in both]

    wait_until(lambda: sum(map(len, handled())) >= 40, what="40 events handled")
    one, other = handled()
    assert one
    assert other
    assert sorted(one + other) == sorted(f"handled {n}" for n in range(40))


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_both_types_of_queue_retry_and_dead_letter_alike(
    broker: Broker, queues: Queues, unique: str, queue_type: Any
) -> None:
    name = queues.forget_after(unique + "r", 10)

    def fail(_event: DomainEvent) -> None:
        raise Retry(0.01)

    seen = Seen(fail)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=2, queue_type=queue_type)
    receiver.declare()
    Sender(broker.url).send(unique + "key", None)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    assert seen.retries == [0, 1, 2]


def test_a_receiver_that_is_not_durable_keeps_what_comes_while_it_is_away_for_a_moment(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "passing")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], durable=False)
    with consuming(receiver):
        wait_consumers(queues, name)
    Sender(broker.url).send(unique + "key", "kept", mandatory=True)
    with consuming(receiver):
        seen.wait(1)
    assert seen.data == ["kept"]


def test_a_receiver_that_is_not_durable_misses_what_comes_after_its_queue_has_expired(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "passing")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], durable=False)
    receiver.declare()
    queues.delete(name)  # what the broker does after 60 s without a consumer
    sender = Sender(broker.url)
    sender.send(unique + "key", "missed")
    with consuming(receiver):
        wait_consumers(queues, name)
        sender.send(unique + "key", "heard", mandatory=True)
        seen.wait(1)
    assert seen.data == ["heard"]


def test_a_queue_that_is_deleted_under_a_receiver_is_declared_again(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    sender = Sender(broker.url)
    with consuming(receiver):
        sender.send(unique + "key", "before")
        seen.wait(1)
        queues.delete(name)
        wait_until(lambda: queues.count(name) is not None, what="the queue again")
        wait_until(lambda: sender.send(unique + "key", "after") and len(seen.events) > 1, what="an event", pause=0.2)
    assert set(seen.data) == {"before", "after"}
    assert any("cancelled the consumer" in message for message in caplog.messages)


def test_one_receiver_of_a_process_that_loses_its_queue_does_not_disturb_the_others(
    broker: Broker, queues: Queues, unique: str
) -> None:
    seen, other = Seen(), Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "a"), [unique + "a"])
    receiver.register(other, queues.forget_after(unique + "b"), [unique + "b"])
    receiver.declare()
    sender = Sender(broker.url)
    with consuming(receiver):
        sender.send(unique + "a", 1)
        seen.wait(1)
        queues.delete(unique + "a")
        for n in range(20):
            sender.send(unique + "b", n, mandatory=True)
        other.wait(20)
    assert other.data == list(range(20))


def test_a_handler_may_send_events(broker: Broker, queues: Queues, unique: str) -> None:
    sender = Sender(broker.url)
    last = Seen()
    receiver = Receiver(broker.url)
    receiver.register(
        lambda event: sender.send(unique + "second", event.data + 1),
        queues.forget_after(unique + "a"),
        [unique + "first"],
    )
    receiver.register(last, queues.forget_after(unique + "b"), [unique + "second"])
    receiver.declare()
    sender.send(unique + "first", 1)
    with consuming(receiver):
        last.wait(1)
    assert last.data == [2]


# What is no event


GOOD = b'{"routing_key": "a.b", "data": 1}'

MALFORMED = {
    "empty": (b"", "not JSON"),
    "no JSON": (b"hello", "not JSON"),
    "binary": (b"\xff\xfe\x00", "not UTF-8"),
    "cut off": (GOOD[:-4], "not JSON"),
    "array": (b"[1, 2]", "an array, not an object"),
    "string": (b'"text"', "a string, not an object"),
    "null": (b"null", "null, not an object"),
    "no routing key": (b'{"data": 1}', "no routing_key"),
    "no data": (b'{"routing_key": "a.b"}', "no data"),
    "routing key is a number": (b'{"routing_key": 5, "data": 1}', "routing_key is a number"),
    "routing key is empty": (b'{"routing_key": "", "data": 1}', "routing_key is empty"),
    "routing key with a line break": (b'{"routing_key": "a\\nb", "data": 1}', "control character"),
    "NaN": (b'{"routing_key": "a.b", "data": NaN}', "NaN"),
    "infinity": (b'{"routing_key": "a.b", "data": 1e999}', "too large"),
    "id is a number": (b'{"routing_key": "a.b", "data": 1, "uuid_string": 7}', "uuid_string is a number"),
    "long id": (b'{"routing_key": "a.b", "data": 1, "uuid_string": "%s"}' % (b"x" * 300), "uuid_string has 300 bytes"),
    "timestamp is text": (b'{"routing_key": "a.b", "data": 1, "timestamp": "now"}', "timestamp is a string"),
    "deeply nested": (b'{"routing_key": "a.b", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "many digits": (b'{"routing_key": "a.b", "data": ' + b"9" * 5000 + b"}", "too many digits"),
}


def test_what_is_no_event_is_dead_lettered_with_the_reason_and_never_reaches_the_handler(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=3)
    receiver.declare()
    for body, _ in MALFORMED.values():
        queues.publish(unique + "key", body)
    sent = Sender(broker.url).send(unique + "key", "good")
    with consuming(receiver):
        queues.wait_count(name + ":dead", len(MALFORMED))
        assert seen.wait(1) == [sent]
    dead = {body: properties.headers for _, properties, body in queues.drain(name + ":dead")}
    assert {body for body, _ in MALFORMED.values()} == set(dead)
    for case, (body, reason) in MALFORMED.items():
        headers = dead[body]
        assert headers["domain-events-reason"].startswith("malformed: "), case
        assert reason in headers["domain-events-reason"], case
        assert headers["domain-events-routing-key"] == unique + "key", case
        assert headers["domain-events-retries"] == 0, case
    assert seen.events == [sent]


def test_the_reason_of_a_malformed_event_does_not_repeat_its_payload(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    receiver.declare()
    queues.publish(unique + "key", b'{"secret": "hunter2')
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    [(_, properties, _)] = queues.drain(name + ":dead")
    assert "hunter2" not in str(properties.headers) + caplog.text


def test_bytes_that_are_no_text_in_keys_headers_and_properties_do_no_harm(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key.#"])
    receiver.declare()
    key: Any = unique.encode() + b"key.\xff\xfe"
    properties = pika.BasicProperties(
        headers={b"\xff\xfe": b"\xff", "plain": b"\xfe"},  # type: ignore[dict-item]
        message_id=b"\xff\xfe",  # type: ignore[arg-type]
        content_type=b"\xff\xfe",  # type: ignore[arg-type]
        delivery_mode=2,
    )
    queues.publish(key, b"no event", properties=properties)
    queues.publish(key, GOOD, properties=properties)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
        seen.wait(1)
    [(_, dead, body)] = queues.drain(name + ":dead")
    assert body == b"no event"
    assert dead.headers["plain"] == b"\xfe"
    assert seen.data == [1]


FAR_TIME = b"T" + (2**63).to_bytes(8)
UNREADABLE_HEADERS = {
    "a time beyond the calendar": b"\x04when" + FAR_TIME,
    "one in a table": b"\x05tableF" + (14).to_bytes(4) + b"\x04when" + FAR_TIME,
    "one in an array": b"\x04listA" + (9).to_bytes(4) + FAR_TIME,
}


@pytest.mark.parametrize("table", UNREADABLE_HEADERS.values(), ids=UNREADABLE_HEADERS)
def test_a_header_that_the_client_library_cannot_read_harms_neither_its_event_nor_others(
    broker: Broker, queues: Queues, unique: str, table: bytes
) -> None:
    name = queues.forget_after(unique + "r")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()

    class Raw(pika.BasicProperties):
        def encode(self) -> list[bytes]:
            flags = self.FLAG_HEADERS | self.FLAG_DELIVERY_MODE | self.FLAG_MESSAGE_ID
            plain = b"\x05plainS" + (5).to_bytes(4) + b"value"
            return [flags.to_bytes(2), len(table + plain).to_bytes(4), table, plain, b"\x02", b"\x05an-id"]

    queues.publish(unique + "key", b"no event", properties=Raw())
    queues.publish(unique + "key", GOOD, properties=Raw())
    sent = Sender(broker.url).send(unique + "key", "good")
    with consuming(receiver):
        seen.wait(2)
        queues.wait_count(name + ":dead", 1)
    assert seen.events[1] == sent
    assert (seen.events[0].data, seen.events[0].uuid_string) == (1, "an-id")
    [(_, properties, body)] = queues.drain(name + ":dead")
    assert (properties.message_id, body) == ("an-id", b"no event")
    assert properties.headers["plain"] == "value"
    assert properties.headers["domain-events-headers-left-out"] == 1


def test_cloudevents_are_events_too(broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen()
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    body = (
        b'{"specversion": "1.0", "type": "user.disabled", "source": "/users", "id": "c-1", "subject": "42",'
        b' "time": "2001-09-09T01:46:40Z", "data": {"user_id": 42}, "extension": true}'
    )
    for content_type in ("application/cloudevents+json", "application/CloudEvents+JSON; charset=utf-8"):
        queues.publish(unique + "key", body, properties=pika.BasicProperties(content_type=content_type))
    queues.publish(
        unique + "key",
        b'{"specversion": "1.0", "type": "user.disabled", "source": "/users", "id": "c-2"}',
        properties=pika.BasicProperties(content_type="application/cloudevents+json"),
    )
    with consuming(receiver):
        first, second, third = seen.wait(3)
    assert first == second
    assert (first.routing_key, first.data, first.uuid_string) == ("user.disabled", {"user_id": 42}, "c-1")
    assert (first.domain_object_id, first.timestamp) == ("42", 1e9)
    assert (third.uuid_string, third.data) == ("c-2", None)
    assert queues.count(name + ":dead") == 0


def test_an_event_without_an_id_has_the_same_one_each_time_it_comes(
    broker: Broker, queues: Queues, unique: str
) -> None:
    def once(event: DomainEvent) -> None:
        if event.retries == 0:
            raise Retry(0)

    seen = Seen(once)
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "r"), [unique + "key"], max_retries=1)
    receiver.declare()
    queues.publish(unique + "key", GOOD)
    with consuming(receiver):
        first, second = seen.wait(2)
    assert first.uuid_string == second.uuid_string


FORGED = {
    "negative": -5,
    "huge": 2**40,
    "text": "many",
    "boolean": True,
    "table": {"a": 1},
    "bytes": b"\xff",
    "none": None,
}


def test_forged_retry_headers_do_no_harm(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r", 10)

    def fail(_event: DomainEvent) -> None:
        raise Retry(0.01)

    seen = Seen(fail)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=2)
    receiver.declare()
    for case, forged in FORGED.items():
        queues.publish(
            unique + "key",
            b'{"routing_key": "a.b", "data": "%s"}' % case.encode(),
            properties=pika.BasicProperties(
                headers={
                    "domain-events-retries": forged,
                    "domain-events-routing-key": forged,
                    "domain-events-first-failed-at": forged,
                }
            ),
        )
    with consuming(receiver):
        queues.wait_count(name + ":dead", len(FORGED))
    for case in FORGED:
        retries = [event.retries for event in seen.events if event.data == case]
        assert retries == ([2**31] if case == "huge" else [0, 1, 2]), case


# Stopping


def test_stop_consuming_in_a_handler_finishes_the_event_in_hand_and_gives_back_the_others(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    seen = Seen(lambda _event: receiver.stop_consuming())
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(5)])
    receiver.start_consuming()
    assert seen.data == [0]
    queues.wait_count(name, 4)
    receiver.start_consuming()
    # Which one comes next is the broker's business: RabbitMQ 4.3 does not always keep the order of what came back.
    assert len(set(seen.data)) == 2
    queues.wait_count(name, 3)


def test_stop_consuming_from_another_thread_ends_an_idle_receiver(broker: Broker, queues: Queues, unique: str) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    receiver.stop_consuming()  # nothing runs: nothing happens
    running = Consuming(receiver)
    wait_until(lambda: queues.count(unique + "r") is not None, what="the queue")
    receiver.stop_consuming()
    wait_until(lambda: running.ended, 20, "the end")
    assert running.error is None
    receiver.stop_consuming()


def test_start_consuming_ends_after_its_timeout_and_can_be_called_again(
    broker: Broker, queues: Queues, unique: str
) -> None:
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "r"), [unique + "key"])
    receiver.declare()
    for n in range(3):
        running = Consuming(receiver, timeout=1.0)
        Sender(broker.url).send(unique + "key", n)
        wait_until(lambda running=running: running.ended, what="the end by timeout")
        assert running.error is None
    with consuming(receiver):
        seen.wait(3)  # a slow machine has handled none of them in its seconds


def test_start_consuming_may_have_no_time_at_all(broker: Broker, queues: Queues, unique: str) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    receiver.start_consuming(timeout=0)


def test_a_receiver_that_runs_cannot_be_started_twice(broker: Broker, queues: Queues, unique: str) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    with consuming(receiver):
        wait_until(lambda: queues.count(unique + "r") is not None, what="the queue")
        with pytest.raises(RuntimeError, match="consuming already"):
            receiver.start_consuming()


HELD = """
import os, sys, time
from domain_events import Receiver
receiver = Receiver(sys.argv[1])
@receiver.handles(sys.argv[2], [sys.argv[3]])
def handle(event):
    print("begun", event.data, flush=True)
    while not os.path.exists(sys.argv[4]):
        time.sleep(0.01)
    print("handled", event.data, flush=True)
receiver.start_consuming()
print("ended", flush=True)
"""


def test_sigterm_finishes_the_event_in_hand_and_gives_back_the_others_at_once(
    broker: Broker, queues: Queues, unique: str, processes: Processes, tmp_path: Path
) -> None:
    name, go = queues.forget_after(unique + "r"), tmp_path / "go"
    process = processes.start([sys.executable, "-c", HELD, broker.url, name, unique + "key", str(go)])
    wait_consumers(queues, name)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(5)])
    process.wait_output("begun 0")
    process.terminate()
    queues.wait_count(name, 4)
    assert "handled 0" not in process.output()
    go.touch()
    assert process.wait() == 0
    assert [line for line in process.output().splitlines() if line] == ["begun 0", "handled 0", "ended"]
    queues.wait_count(name, 4)


IN_C = """
import ctypes, os, sys, threading, time
from domain_events import Receiver
libc, mutex, held = ctypes.CDLL(None), ctypes.create_string_buffer(64), threading.Event()
def hold():
    libc.pthread_mutex_lock(mutex)
    held.set()
    while not os.path.exists(sys.argv[4]):
        time.sleep(0.01)
    libc.pthread_mutex_unlock(mutex)
receiver = Receiver(sys.argv[1])
@receiver.handles(sys.argv[2], [sys.argv[3]])
def handle(event):
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    print("begun", event.data, flush=True)
    libc.pthread_mutex_lock(mutex)  # one call in C, without the GIL, that no signal interrupts
    print("handled", event.data, flush=True)
receiver.start_consuming()
print("ended", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_the_handler_is_in_c_code_is_seen_at_once_and_stops_it_cleanly(
    broker: Broker, queues: Queues, unique: str, processes: Processes, tmp_path: Path, signum: int
) -> None:
    name, go = queues.forget_after(unique + "r"), tmp_path / "go"
    process = processes.start([sys.executable, "-c", IN_C, broker.url, name, unique + "key", str(go)])
    wait_consumers(queues, name)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(3)])
    process.wait_output("begun 0")
    process.send(signum)
    queues.wait_count(name, 2)
    assert "handled 0" not in process.output()
    go.touch()
    assert process.wait() == 0
    assert process.output().split("\n")[1:3] == ["handled 0", "ended"]
    queues.wait_count(name, 2)


def test_a_second_interrupt_ends_the_process_at_once_and_the_event_comes_again(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name = queues.forget_after(unique + "r")
    process = processes.start(consumer(broker.url, name, unique + "key", seconds=60))
    wait_consumers(queues, name)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(2)])
    process.wait_output("begun 0")
    process.send(signal.SIGINT)
    queues.wait_count(name, 1)  # the first is understood
    process.send(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    queues.wait_count(name, 2)


def test_the_signal_handlers_of_the_program_are_put_back(broker: Broker, queues: Queues, unique: str) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    receiver.start_consuming(timeout=0.1)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_receiver_can_be_stopped_while_it_is_connecting(broker: Broker, unique: str) -> None:
    with relay(broker.url) as wire:
        wire.deaf = True
        receiver = Receiver(wire.url + "?connection_timeout=300000")  # which is not waited for
        receiver.register(Seen(), unique + "r", [unique + "key"])
        running = Consuming(receiver)
        wait_until(lambda: wire.links, what="an attempt to connect")
        receiver.stop_consuming()
        wait_until(lambda: running.ended, 20, "the end")
        assert running.error is None


def test_a_receiver_can_be_stopped_while_the_broker_is_away(unique: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    receiver = Receiver(f"amqp://127.0.0.1:{port}")
    receiver.register(Seen(), unique + "r", [unique + "key"])
    receiver.start_consuming(timeout=1.0)


def test_start_consuming_with_a_wrong_password_is_refused(broker: Broker, unique: str) -> None:
    receiver = Receiver(broker.url.replace("guest:guest", "guest:hunter2"))
    receiver.register(Seen(), unique + "r", [unique + "key"])
    with pytest.raises(BrokerRefused, match="login") as refused:
        receiver.start_consuming()
    assert "hunter2" not in str(refused.value)


def test_declare_says_when_nobody_listens(unique: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    receiver = Receiver(f"amqp://127.0.0.1:{port}")
    receiver.register(Seen(), unique + "r", [unique + "key"])
    with pytest.raises(ConnectionFailed, match=str(port)):
        receiver.declare()


def test_declare_gives_up_on_a_broker_that_says_nothing(broker: Broker, unique: str) -> None:
    with relay(broker.url) as wire:
        wire.deaf = True
        receiver = Receiver(wire.url)
        receiver.register(Seen(), unique + "r", [unique + "key"])
        with pytest.raises(ConnectionFailed, match=r"within 0\.3 s"):
            receiver.declare(timeout=0.3)


def test_offline_nothing_is_received_and_that_is_logged_at_debug(unique: str, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(None)
    receiver.register(Seen(), unique + "r", [unique + "key"])
    with caplog.at_level(logging.DEBUG, "domain_events"):
        receiver.declare()
        receiver.start_consuming()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.DEBUG]
    assert "offline" in caplog.text


# Losing the connection


def test_an_event_whose_connection_was_lost_in_mid_handler_comes_again(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r")
    go_on = threading.Event()
    seen = Seen(lambda _event: go_on.wait(30))
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url)
        receiver.register(seen, name, [unique + "key"])
        receiver.declare()
        Sender(broker.url).send_many([(unique + "key", n) for n in range(3)])
        with consuming(receiver):
            seen.wait(1)
            with wire.away():
                queues.wait_count(name, 3)
            go_on.set()
            seen.wait(4)
            queues.wait_count(name, 0)
    # The one in hand was handled twice, those that were only prefetched once.
    assert sorted(seen.data) == [0, 0, 1, 2]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([message for message in warnings if "comes again" in message]) == 1


def test_a_stop_does_not_wait_for_a_broker_that_went_away(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    go_on = threading.Event()
    seen = Seen(lambda _event: go_on.wait(30))
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url + "?connection_timeout=300000")  # which is not waited for
        receiver.register(seen, name, [unique + "key"])
        receiver.declare()
        Sender(broker.url).send(unique + "key", 1)
        running = Consuming(receiver)
        seen.wait(1)
        wire.deaf = True
        wire.cut()
        receiver.stop_consuming()
        go_on.set()
        wait_until(lambda: running.ended, 20, "the end")
    assert running.error is None
    queues.wait_count(name, 1)


def test_heartbeats_go_on_while_a_handler_is_busy(broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen(lambda _event: time.sleep(5))
    receiver = Receiver(broker.url + "?heartbeat=1")
    receiver.register(seen, queues.forget_after(unique + "r"), [unique + "key"])
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        seen.wait(1)
    assert seen.data == [1]
    queues.wait_count(unique + "r", 0)


def test_many_events_are_all_acked_whatever_the_handlers_pace(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")

    def uneven(event: DomainEvent) -> None:
        if event.data % 50 == 0:
            time.sleep(0.02)
        if event.data % 97 == 0:
            raise ValueError(event.data)

    seen = Seen(uneven)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(1000)])
    with consuming(receiver):
        seen.wait(1000)
        queues.wait_count(name + ":dead", 11)
    assert seen.data == list(range(1000))
    queues.wait_count(name, 0)


def test_a_project_of_one_file_receives_as_the_readme_says(
    broker: Broker, queues: Queues, unique: str, processes: Processes, tmp_path: Path
) -> None:
    queues.forget_after(unique + "printer")
    script = tmp_path / "app.py"
    script.write_text(
        f"""
from domain_events import Receiver, send_domain_event
def handle_user_event(event):
    print("user event", event.routing_key, event.data, flush=True)
    receiver.stop_consuming()
receiver = Receiver()
receiver.register(handle_user_event, {unique + "printer"!r}, [{unique + "user.*"!r}])
receiver.declare()
send_domain_event({unique + "user.disabled"!r}, {{"user_id": 1}})
receiver.start_consuming(timeout=60)
"""
    )
    process = processes.start(
        [sys.executable, str(script)], env={"DOMAIN_EVENT_BROKER": broker.url, "PYTHONPATH": str(Path.cwd())}
    )
    assert process.wait() == 0
    assert process.output() == f"user event {unique}user.disabled {{'user_id': 1}}\n"


def test_what_was_handled_in_a_drain_stays_handled_however_much_is_given_back(
    broker: Broker, queues: Queues, unique: str
) -> None:
    # RabbitMQ would forget an ack that comes right after many nacks and right before the end of the channel.
    name = queues.forget_after(unique + "r")
    n = 300
    seen: list[int] = []
    receiver = Receiver(broker.url)

    def handler(event: DomainEvent) -> None:
        seen.append(event.data)
        if len(seen) % 50 == 1 or len(seen) == n:  # the others are with us, and go back
            receiver.stop_consuming()

    receiver.register(handler, name, [unique + "key"], prefetch=200)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", each) for each in range(n)])
    while len(seen) < n:
        receiver.start_consuming(timeout=60)
    assert sorted(seen) == [*range(n)]
    queues.wait_count(name, 0)
