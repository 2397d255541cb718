"""Where a Django project's broker comes from, and what `manage.py check` says of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from domain_events import DEFAULT, ConfigurationError
from domain_events.settings import configured_brokers
from tests.django_project import MANAGE
from tests.processes import Processes

pytest_plugins = ["tests.django_project.fixtures"]
pytestmark = pytest.mark.usefixtures("shop")


def hosts(role: Any) -> list[str] | None:
    """What a sender or a receiver would connect to."""
    brokers = configured_brokers(DEFAULT, role)
    return None if brokers is None else [broker.host for broker in brokers]


def test_djangos_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://from-environment")
    monkeypatch.setenv("DOMAIN_EVENT_PRODUCER_BROKER", "amqp://own-from-environment")
    assert hosts("consumer") == ["from-environment"]
    with override_settings(DOMAIN_EVENT_BROKER="amqp://from-django"):
        assert hosts("consumer") == ["from-django"]
        assert hosts("producer") == ["from-django"]
    assert hosts("producer") == ["own-from-environment"]


def test_sending_and_receiving_may_have_brokers_of_their_own() -> None:
    with override_settings(
        DOMAIN_EVENT_BROKER="amqp://both",
        DOMAIN_EVENT_PRODUCER_BROKER="amqp://sending",
        DOMAIN_EVENT_CONSUMER_BROKER="amqp://receiving",
    ):
        assert hosts("producer") == ["sending"]
        assert hosts("consumer") == ["receiving"]
    with override_settings(DOMAIN_EVENT_BROKER="amqp://both", DOMAIN_EVENT_PRODUCER_BROKER="amqp://sending"):
        assert hosts("consumer") == ["both"]


def test_none_is_offline_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://from-environment")
    with override_settings(DOMAIN_EVENT_BROKER=None):
        assert hosts("producer") is None
        assert hosts("consumer") is None


@pytest.mark.parametrize("value", [["amqp://a", "amqp://b"], ("amqp://a", "amqp://b"), "amqp://a, amqp://b"])
def test_the_nodes_of_a_cluster_are_a_list_or_separated_by_commas(value: object) -> None:
    with override_settings(DOMAIN_EVENT_BROKER=value):
        assert hosts("consumer") == ["a", "b"]


def test_the_checks_find_nothing_in_a_project_that_is_right() -> None:
    with override_settings(DOMAIN_EVENT_BROKER=["amqp://a", "amqp://b"], DOMAIN_EVENT_PRODUCER_BROKER=None):
        assert run_checks() == []


@pytest.mark.parametrize("name", ["BROKER", "PRODUCER_BROKER", "CONSUMER_BROKER"])
@pytest.mark.parametrize(
    "value",
    [
        "amqp://user:secret@host:port/",
        "http://user:secret@host/",
        "user:secret@host",
        "amqp://user:secret#@host/",
        "amqp://user:secret@host/?heartbeat=soon",
        ["amqp://good", "amqp:/user:secret@host"],
        [],
        "",
        5672,
        {"host": "secret"},
    ],
)
def test_a_malformed_url_in_the_settings_is_an_error_that_does_not_tell_the_password(name: str, value: object) -> None:
    with override_settings(**{f"DOMAIN_EVENT_{name}": value}):
        [found] = run_checks()
        assert found.id == "domain_events.E001"
        assert f"DOMAIN_EVENT_{name}" in found.msg
        assert "secret" not in str(found)
        with pytest.raises(ConfigurationError):
            hosts("consumer" if name == "CONSUMER_BROKER" else "producer")


def test_manage_py_check_reports_receivers_that_cannot_be_imported(
    processes: Processes,
    shop_environment: dict[str, str],
) -> None:
    check = processes.start([sys.executable, MANAGE, "check"], {**shop_environment, "SHOP_BREAK": "1"})
    assert check.wait() == 1
    output = check.output()
    assert "(domain_events.E002) tests.django_project.shop.receivers cannot be imported" in output
    assert "RuntimeError: the shop is broken" in output
    assert "shop/receivers.py, line" in output
