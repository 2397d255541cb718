"""Events that are sent when their transaction is committed, on a real PostgreSQL and a real broker."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import ConnectionDoesNotExist
from django.test import TestCase, modify_settings, override_settings

from domain_events import ConfigurationError, ConnectionFailed, InvalidName, Sender, UnsendableData
from domain_events.django import send_domain_event_on_commit
from tests.brokers import Broker, Queues
from tests.observing import Noted, observing
from tests.waiting import wait_until

pytest_plugins = ["tests.django_project.fixtures"]

NOBODY = "amqp://guest:guest@127.0.0.1:1/%2F"

Send = Callable[..., Any]
Sent = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def sent(shop: Any, broker: Broker, queues: Queues, unique: str) -> Iterator[Sent]:
    """What came under this test's routing keys since the last call, at the broker that Django's settings name."""
    queue = queues.declare_watch(f"{unique}order.*")
    mark = f"{unique}order.mark"

    def take() -> list[dict[str, Any]]:
        # All events of this process take one connection: what was sent before the mark is before it in the queue.
        Sender(broker.url).send(mark, None)
        found: list[dict[str, Any]] = []
        while not found or found[-1]["routing_key"] != mark:
            _, _, body = wait_until(lambda: queues.get(queue), what="the mark")
            found.append(json.loads(body))
        return found[:-1]

    with override_settings(DOMAIN_EVENT_BROKER=broker.url):
        yield take


@pytest.fixture
def send(sent: Sent, unique: str) -> Send:
    """`send_domain_event_on_commit` with a number as data, under a routing key of this test."""

    def call(number: Any, **options: Any) -> Any:
        return send_domain_event_on_commit(f"{unique}order.placed", number, **options)

    return call


def numbers(events: list[dict[str, Any]]) -> list[Any]:
    return [event["data"] for event in events]


def test_an_event_is_sent_after_the_commit_and_not_before(sent: Sent, send: Send, shop: Any) -> None:
    with transaction.atomic():
        shop.objects.create(number=1)
        event = send(1, domain_object_id=7)
        assert sent() == []
    [body] = sent()
    assert body["uuid_string"] == event.uuid_string
    assert body["timestamp"] == event.timestamp
    assert body["domain_object_id"] == "7"
    assert body["data"] == 1


def test_an_event_is_told_to_observers_after_the_commit_and_not_of_a_rollback(sent: Sent, send: Send) -> None:
    with observing(Noted()) as noted:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send(1)
            raise ZeroDivisionError
        with transaction.atomic():
            event = send(2)
            assert noted.words == []
    assert noted.words == [("sent", event)]


def test_a_rollback_sends_nothing(sent: Sent, send: Send) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send(1)
        raise ZeroDivisionError
    with transaction.atomic():
        send(2)
        transaction.set_rollback(True)
    send(3)
    assert numbers(sent()) == [3]


def test_a_rollback_to_a_savepoint_drops_only_the_events_since_then(sent: Sent, send: Send) -> None:
    with transaction.atomic():
        send(1)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send(2)
            with transaction.atomic():
                send(3)
            raise ZeroDivisionError
        with transaction.atomic():
            send(4)
        assert sent() == [], "the end of an inner atomic() is no commit"
        send(5)
    assert numbers(sent()) == [1, 4, 5]


def test_a_commit_that_the_database_refuses_sends_nothing(sent: Sent, send: Send) -> None:
    with connection.cursor() as cursor:
        cursor.execute("create temporary table once (n int unique deferrable initially deferred)")
        with pytest.raises(IntegrityError), transaction.atomic():
            cursor.execute("insert into once values (1), (1)")
            send(1)
    assert sent() == []


def test_each_database_has_its_own_transaction(sent: Sent, send: Send) -> None:
    with transaction.atomic(using="other"):
        send(1)  # of the default database, which has no transaction
        assert numbers(sent()) == [1]
        with transaction.atomic():
            send(2)
            send(3, using="other")
        assert numbers(sent()) == [2]
    assert numbers(sent()) == [3]
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="other"):
        with transaction.atomic():
            send(4)
            send(5, using="other")
        raise ZeroDivisionError
    assert numbers(sent()) == [4]


def test_outside_of_a_transaction_an_event_is_sent_at_once(sent: Sent, send: Send) -> None:
    event = send(1)
    assert [body["uuid_string"] for body in sent()] == [event.uuid_string]


def test_an_event_is_sent_as_it_was_when_it_was_made(sent: Sent, send: Send) -> None:
    data = {"lines": [1, 2]}
    with transaction.atomic():
        event = send(data)
        data["lines"].append(3)
        event.data["more"] = True
    [body] = sent()
    assert body["data"] == {"lines": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"number": object()}, UnsendableData),
        ({"number": float("nan")}, UnsendableData),
        ({"number": 1, "timeout": 0}, ValueError),
        ({"number": 1, "connection_settings": "http://localhost"}, ConfigurationError),
        ({"number": 1, "using": "elsewhere"}, ConnectionDoesNotExist),
    ],
)
def test_what_cannot_be_sent_raises_inside_the_transaction(
    arguments: dict[str, Any],
    error: type[Exception],
    sent: Sent,
    send: Send,
    shop: Any,
) -> None:
    with pytest.raises(error), transaction.atomic():
        shop.objects.create(number=1)
        try:
            send(arguments.pop("number"), **arguments)
        except error:
            raise
        else:
            pytest.fail("it was taken")
    assert shop.objects.count() == 0
    assert sent() == []


def test_a_bad_routing_key_or_a_malformed_setting_raises_inside_the_transaction(shop: Any) -> None:
    with transaction.atomic():
        with pytest.raises(InvalidName):
            send_domain_event_on_commit("order.*", 1)
        with override_settings(DOMAIN_EVENT_BROKER="amqp://host:nonsense/"), pytest.raises(ConfigurationError):
            send_domain_event_on_commit("order.placed", 1)


def test_with_autocommit_off_and_no_atomic_block_django_refuses(sent: Sent, send: Send) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            send(1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert sent() == []


def test_a_failure_to_send_after_the_commit_raises_and_tells_of_which_event(send: Send, shop: Any) -> None:
    with pytest.raises(ConnectionFailed) as failure, transaction.atomic():
        shop.objects.create(number=1)
        event = send(1, connection_settings=NOBODY, timeout=0.2)
    assert shop.objects.count() == 1, "the transaction is committed"
    [note] = failure.value.__notes__
    assert "'default' is committed" in note
    assert event.uuid_string in note
    assert event.routing_key in note


def test_a_robust_event_that_cannot_be_sent_is_logged_and_the_next_one_is_sent(
    sent: Sent,
    send: Send,
    shop: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "django.db"), transaction.atomic():
        shop.objects.create(number=1)
        lost = send(1, connection_settings=NOBODY, timeout=0.2, robust=True)
        send(2)
    assert shop.objects.count() == 1
    assert numbers(sent()) == [2]
    assert lost.uuid_string in caplog.text
    assert "ConnectionFailed" in caplog.text


def test_offline_nothing_is_sent_and_nothing_fails(sent: Sent, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "domain_events"), override_settings(DOMAIN_EVENT_BROKER=None):
        with transaction.atomic():
            event = send(1)
            assert not caplog.records
        assert event.uuid_string in caplog.text
    assert sent() == []


def test_a_django_test_case_sees_the_events_with_capture_on_commit_callbacks(sent: Sent, send: Send) -> None:
    class Case(TestCase):
        def test_it(self) -> None:
            send(1)
            assert sent() == []
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                send(2)
                send(3)
            assert [callback.__name__ for callback in callbacks] == ["send_domain_event"] * 2
            assert numbers(sent()) == [2, 3]

    result = unittest.TestResult()
    unittest.TestSuite([Case("test_it")]).run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures
    assert sent() == []


def test_it_refuses_when_the_app_is_not_installed_and_the_settings_would_be_ignored(shop: Any) -> None:
    with (
        modify_settings(INSTALLED_APPS={"remove": ["domain_events.django"]}),
        pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"),
    ):
        send_domain_event_on_commit("order.placed", 1)


def test_it_can_be_imported_before_django_has_settings() -> None:
    code = (
        "from domain_events.django import send_domain_event_on_commit\n"
        "from django.conf import settings\n"
        "from django.apps import apps\n"
        "assert not settings.configured and not apps.apps_ready\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
