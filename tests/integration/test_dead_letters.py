"""Dead letters on a real broker: what is given up is set aside whole, with everything that a person needs to know."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from domain_events import DeadLetter, DomainEvent, Receiver, Retry, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.waiting import wait_until


def dead_letter(
    broker: Broker,
    queues: Queues,
    unique: str,
    fail: Callable[[DomainEvent], Any],
    *,
    body: bytes = b'{"routing_key": "user.disabled", "data": 1, "uuid_string": "an-id"}',
    properties: pika.BasicProperties | None = None,
    **policy: Any,
) -> tuple[Any, bytes]:
    """Properties and body of the dead letter that `fail` leads to."""
    name = queues.forget_after(unique + "r", 10)
    receiver = Receiver(broker.url)
    receiver.register(fail, name, [unique + "key"], **policy)
    receiver.declare()
    queues.publish(unique + "key", body, properties=properties)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    queues.wait_count(name, 0)
    [(_, dead, dead_body)] = queues.drain(name + ":dead")
    return dead, dead_body


def raising(error: BaseException) -> Callable[[DomainEvent], None]:
    def handle(_event: DomainEvent) -> None:
        raise error

    return handle


def headers_of(properties: Any) -> dict[str, Any]:
    """Without those that the dead-letter queue itself adds when it is read."""
    added = ("x-delivery-count", "x-acquired-count")
    return {name: value for name, value in properties.headers.items() if name not in added}


def size_of(properties: pika.BasicProperties) -> int:
    return len(b"".join(properties.encode()))


def test_the_fourth_failure_is_a_dead_letter_with_everything_one_must_know(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r", 10)

    def explode(_event: DomainEvent) -> None:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise Retry(0.01) from error

    seen = Seen(explode)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], max_retries=3)
    receiver.declare()
    began = time.time()
    sent = Sender(broker.url, app_id="shop").send(unique + "key", {"user_id": 1})
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    assert seen.retries == [0, 1, 2, 3]
    [(method, properties, body)] = queues.drain(name + ":dead")
    assert method.routing_key == name + ":dead"
    assert DomainEvent.from_json(body) == sent
    assert body == sent.encode()
    headers = headers_of(properties)
    traceback = headers.pop("domain-events-traceback")
    assert "ValueError: the cause" in traceback
    assert "in explode" in traceback
    assert "domain_events/handling.py" not in traceback  # not ours
    first, last = (float(headers.pop(f"domain-events-{what}")) for what in ("first-failed-at", "dead-at"))
    assert began <= first < last <= time.time()
    assert headers == {
        "domain-events-reason": "still failing after 3 of 3 retries",
        "domain-events-error-type": "ValueError",
        "domain-events-error-message": "the cause",
        "domain-events-retries": 3,
        "domain-events-receiver": name,
        "domain-events-routing-key": unique + "key",
        "domain-events-host": socket.gethostname(),
        "domain-events-pid": os.getpid(),
    }
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.message_id) == (2, sent.uuid_string)
    assert (properties.timestamp, properties.type) == (int(sent.timestamp), unique + "key")
    assert properties.app_id == "shop"


def test_any_other_error_is_a_dead_letter_at_once(broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen(raising(KeyError("user")))
    dead, _ = dead_letter(broker, queues, unique, seen, max_retries=3)
    assert dead.headers["domain-events-reason"] == "the handler raised KeyError"
    assert dead.headers["domain-events-error-type"] == "KeyError"
    assert dead.headers["domain-events-error-message"] == "'user'"
    assert dead.headers["domain-events-retries"] == 0
    assert dead.headers["domain-events-first-failed-at"] == dead.headers["domain-events-dead-at"]
    assert seen.retries == [0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
def test_what_would_end_a_program_is_a_failure_of_the_event(
    broker: Broker, queues: Queues, unique: str, error: BaseException
) -> None:
    dead, _ = dead_letter(broker, queues, unique, raising(error))
    assert dead.headers["domain-events-reason"] == f"the handler raised {type(error).__name__}"


def test_the_handler_may_give_the_reason(broker: Broker, queues: Queues, unique: str) -> None:
    dead, _ = dead_letter(broker, queues, unique, raising(DeadLetter("no such\nuser")), max_retries=3)
    assert dead.headers["domain-events-reason"] == "no such user"
    assert dead.headers["domain-events-error-type"] == "DeadLetter"


def test_the_error_behind_a_dead_letter_is_the_one_that_is_shown(broker: Broker, queues: Queues, unique: str) -> None:
    def handle(_event: DomainEvent) -> None:
        try:
            raise LookupError("user 7")
        except LookupError:
            raise DeadLetter("no such user")  # noqa: B904 - the context is what is tested

    dead, _ = dead_letter(broker, queues, unique, handle)
    assert dead.headers["domain-events-error-type"] == "LookupError"
    assert dead.headers["domain-events-error-message"] == "user 7"
    assert "LookupError: user 7" in dead.headers["domain-events-traceback"]
    assert "During handling" in dead.headers["domain-events-traceback"]


def test_a_handler_that_returns_a_coroutine_has_not_handled_the_event(
    broker: Broker, queues: Queues, unique: str
) -> None:
    async def work() -> None: ...

    dead, _ = dead_letter(broker, queues, unique, lambda _event: work())
    assert dead.headers["domain-events-error-type"] == "TypeError"
    assert "coroutine" in dead.headers["domain-events-error-message"]


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_that_cannot_be_shown_is_a_dead_letter_all_the_same(
    broker: Broker, queues: Queues, unique: str
) -> None:
    dead, _ = dead_letter(broker, queues, unique, raising(Hostile()))
    assert dead.headers["domain-events-error-type"] == "Hostile"
    assert dead.headers["domain-events-error-message"] == "(its __str__ raised RuntimeError)"


def test_a_text_that_is_no_unicode_is_a_dead_letter_all_the_same(broker: Broker, queues: Queues, unique: str) -> None:
    dead, _ = dead_letter(broker, queues, unique, raising(DeadLetter("lone \ud800 surrogate \0")))
    assert "surrogate" in dead.headers["domain-events-reason"]


def test_everything_of_the_original_is_kept_but_the_notes_of_the_broker(
    broker: Broker, queues: Queues, unique: str
) -> None:
    foreign = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "number": 2**40,
        "nested": {"list": [1, "two", None, True, b"\xff"]},
        "when": datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.UTC),
        "price": decimal.Decimal("1.25"),
        "x-custom": "kept",
    }
    body = b' {"routing_key":"a.b",\n "data": 1.0, "uuid_string": "in-the-body", "unknown": [1]} '
    original = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            **foreign,
            "x-death": [{"queue": "q", "count": 5, "reason": "rejected"}],
            "x-first-death-queue": "q",
            "x-last-death-reason": "rejected",
            "x-delivery-count": 7,
            "CC": [unique + "elsewhere"],
            "BCC": [unique + "elsewhere"],
        },
        delivery_mode=1,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="600000",
        message_id="in-the-properties",
        timestamp=1234567890,
        type="t",
        app_id="shop",
    )
    dead, dead_body = dead_letter(
        broker, queues, unique, raising(Retry(0.01)), body=body, properties=original, max_retries=1
    )
    assert dead_body == body
    kept = headers_of(dead)
    assert {name: value for name, value in kept.items() if not name.startswith("domain-events-")} == foreign
    assert dead.message_id == "in-the-properties"
    assert (dead.correlation_id, dead.reply_to, dead.priority) == ("c", "r", 3)
    assert (dead.timestamp, dead.type, dead.app_id) == (1234567890, "t", "shop")
    assert dead.delivery_mode == 2  # a retry and a dead letter are on disk
    assert dead.expiration is None  # and nothing makes them vanish


def test_a_cc_header_does_not_make_more_copies_at_each_retry(broker: Broker, queues: Queues, unique: str) -> None:
    watch = queues.declare_watch(unique + "elsewhere")
    dead_letter(
        broker,
        queues,
        unique,
        raising(Retry(0.01)),
        properties=pika.BasicProperties(headers={"CC": [unique + "elsewhere", watch]}),
        max_retries=2,
    )
    assert len(queues.drain(watch)) == 1


def test_a_giant_message_and_traceback_are_cut_in_the_middle(broker: Broker, queues: Queues, unique: str) -> None:
    def handle(_event: DomainEvent) -> None:
        raise ValueError("begin " + "\U0001f600" * 1_000_000 + " end")

    dead, _ = dead_letter(broker, queues, unique, handle)
    message = dead.headers["domain-events-error-message"]
    traceback = dead.headers["domain-events-traceback"]
    assert len(message) <= 2_000
    assert message.startswith("begin ")
    assert message.endswith(" end")
    assert len(traceback) <= 16_000
    assert traceback.startswith("Traceback")
    assert traceback.endswith(" end\n")
    assert size_of(dead) < 2**16


def test_a_deep_recursion_is_a_dead_letter(broker: Broker, queues: Queues, unique: str) -> None:
    def handle(event: DomainEvent) -> None:
        handle(event)

    dead, _ = dead_letter(broker, queues, unique, handle)
    assert dead.headers["domain-events-error-type"] == "RecursionError"


def test_giant_foreign_headers_give_way_to_ours(broker: Broker, queues: Queues, unique: str) -> None:
    dead, _ = dead_letter(
        broker,
        queues,
        unique,
        raising(ValueError("x" * 100_000)),
        properties=pika.BasicProperties(
            headers={"small": "kept", **{f"giant-{n}": str(n) * 30_000 for n in range(4)}}, message_id="an-id"
        ),
    )
    assert size_of(dead) < 2**16
    assert dead.headers["small"] == "kept"
    assert dead.headers["domain-events-reason"] == "the handler raised ValueError"
    assert dead.headers["domain-events-headers-left-out"] == 3
    assert dead.message_id == "an-id"


def test_giant_forged_headers_of_ours_give_way_too(broker: Broker, queues: Queues, unique: str) -> None:
    forged = ("routing-key", "reason", "traceback", "first-failed-at", "invented")
    dead, _ = dead_letter(
        broker,
        queues,
        unique,
        raising(Retry(0.01)),
        properties=pika.BasicProperties(headers={f"domain-events-{name}": "9" * 24_000 for name in forged}),
        max_retries=1,
    )
    assert size_of(dead) < 2**16
    assert dead.headers["domain-events-routing-key"] == unique + "key"
    assert dead.headers["domain-events-retries"] == 1


def test_a_large_body_is_kept_byte_for_byte(broker: Broker, queues: Queues, unique: str) -> None:
    body = b'{"routing_key": "a.b", "data": "' + b"x" * 5_000_000 + b'"}'
    _, dead_body = dead_letter(broker, queues, unique, raising(Retry(0.01)), body=body, max_retries=1)
    assert dead_body == body


def test_without_dead_letters_the_event_is_logged_and_gone(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r", 10)
    seen = Seen(raising(Retry(0.01)))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"], dead_letter=False, max_retries=1)
    receiver.declare()
    sent = Sender(broker.url).send(unique + "key", {"secret": "payload"})
    queues.publish(unique + "key", b"no event", properties=pika.BasicProperties(message_id="odd\nid"))
    with consuming(receiver):
        seen.wait(2)
        queues.wait_count(name, 0)
    queues.wait_count(name, 0)
    assert queues.count(name + ":dead") is None
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    [dropped] = [message for message in errors if sent.uuid_string in message]
    assert unique + "key" in dropped
    assert "drops" in dropped
    assert "still failing after 1 of 1 retries" in dropped
    [malformed] = [message for message in errors if sent.uuid_string not in message]
    assert r"odd\nid" in malformed
    assert "malformed" in malformed
    assert "payload" not in caplog.text


def test_a_dead_letter_is_logged_at_error_without_its_payload(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    dead_letter(broker, queues, unique, raising(ValueError("why")), body=b'{"routing_key": "a.b", "data": "payload"}')
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "dead-letters" in record.getMessage()
    assert "ValueError: why" in caplog.text
    assert "payload" not in caplog.text


def test_a_dead_letter_queue_that_was_deleted_is_declared_again(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(raising(ValueError()), name, [unique + "key"])
    receiver.declare()
    with consuming(receiver):
        for n in range(3):
            Sender(broker.url).send(unique + "key", n)
            queues.wait_count(name + ":dead", 1)
            queues.delete(name + ":dead")
    queues.wait_count(name, 0)


def test_the_dead_letters_of_one_receiver_are_not_those_of_another(broker: Broker, queues: Queues, unique: str) -> None:
    one, other = (queues.forget_after(unique + which) for which in ("one", "other"))
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(raising(ValueError()), one, [unique + "key"])
    receiver.register(seen, other, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(10)])
    with consuming(receiver):
        queues.wait_count(one + ":dead", 10)
        seen.wait(10)
    assert queues.count(other + ":dead") == 0
    dead = [DomainEvent.from_json(body).data for _, _, body in queues.drain(one + ":dead")]
    assert dead == list(range(10))


def test_a_dead_letter_may_be_looked_at_any_number_of_times(broker: Broker, queues: Queues, unique: str) -> None:
    """RabbitMQ 4 drops at the 21st return what has no limit of its own: 4.0 counts nacks, 4.3 closed connections."""
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(raising(ValueError("no")), name, [unique + "key"])
    receiver.declare()
    queues.publish(unique + "key", b'{"routing_key": "user.disabled", "data": 1}')
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    parameters = pika.URLParameters(broker.url)
    for look in range(30):
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            # A return takes a moment to be counted as ready again.
            [method] = [wait_until(lambda channel=channel: channel.basic_get(name + ":dead")[0], 20.0)]  # type: ignore[misc]
            if look % 2:
                channel.basic_nack(method.delivery_tag, requeue=True)
    queues.wait_count(name + ":dead", 1)
