"""Where the broker's URL comes from, and what it means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.errors import ConfigurationError
from domain_events.settings import (
    DEFAULT,
    NOT_SET,
    Broker,
    Role,
    add_source,
    configured_brokers,
    override,
    parse_broker,
    parse_brokers,
)
from tests.documents import table

SECRET = "hunter2"
NAMES = ("DOMAIN_EVENT_BROKER", "DOMAIN_EVENT_PRODUCER_BROKER", "DOMAIN_EVENT_CONSUMER_BROKER")
ROLES: tuple[Role, ...] = ("producer", "consumer")


class DjangoSettings:
    """Answers as `domain_events.django` does."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def __call__(self, name: str) -> object:
        return self.values.get(name, NOT_SET)


_django = DjangoSettings()  # one for all tests: a source stays for the life of a process


@pytest.fixture
def django() -> Iterator[DjangoSettings]:
    add_source(_django)
    yield _django
    _django.values.clear()


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield
    override(DEFAULT)


def host_for(role: Role, settings: Any = DEFAULT) -> str | None:
    brokers = configured_brokers(settings, role)
    return brokers[0].host if brokers else None


# URLs


def test_a_url_names_everything():
    assert parse_broker("amqp://user:pass@host:1234/domain-events", "x") == Broker(
        host="host", port=1234, virtual_host="domain-events", user="user", password="pass"
    )


@pytest.mark.parametrize("url", ["amqp://localhost", "amqp://localhost/", "amqp://localhost:5672/%2F"])
def test_what_a_url_leaves_out_is_what_rabbitmq_has_by_default(url: str):
    expected = Broker(host="localhost", port=5672, virtual_host="/", user="guest", password="guest")
    assert parse_broker(url, "x") == expected


def test_names_and_passwords_may_hold_anything_when_escaped():
    broker = parse_broker("amqp://us%40er:p%2F%3A%23%3F%40%25@host/a%2Fb%40c", "x")
    assert (broker.user, broker.password, broker.virtual_host) == ("us@er", "p/:#?@%", "a/b@c")


@given(user=st.text(min_size=1), password=st.text(), virtual_host=st.text(min_size=1))
def test_every_escaped_name_is_read_as_it_was(user: str, password: str, virtual_host: str):
    escaped_user, escaped_password, escaped_host = (quote(text, safe="") for text in (user, password, virtual_host))
    url = f"amqp://{escaped_user}:{escaped_password}@host/{escaped_host}"
    broker = parse_broker(url, "x")
    assert (broker.user, broker.password, broker.virtual_host) == (user, password, virtual_host)


def test_an_at_sign_or_comma_in_a_password_needs_no_escape():
    assert parse_broker("amqp://user:p@ss,word@host", "x").password == "p@ss,word"


def test_an_ipv6_address_stands_in_brackets():
    broker = parse_broker("amqp://[::1]:5673/", "x")
    assert (broker.host, broker.port) == ("::1", 5673)
    assert str(broker) == "amqp://guest@[::1]:5673/%2F"


def test_tls_has_its_own_port_and_parameters():
    broker = parse_broker(
        "amqps://host?cacertfile=/ca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_none&server_name_indication=n",
        "x",
    )
    assert (broker.tls, broker.port, broker.verify) == (True, 5671, False)
    assert (broker.cafile, broker.certfile, broker.keyfile) == ("/ca.pem", "/c.pem", "/k.pem")
    assert broker.server_name == "n"
    assert parse_broker("amqps://host", "x").verify is True
    assert str(broker) == "amqps://guest@host:5671/%2F"


def test_heartbeat_is_seconds_and_connection_timeout_milliseconds():
    broker = parse_broker("amqp://host?heartbeat=30&connection_timeout=1500", "x")
    assert (broker.heartbeat, broker.connection_timeout) == (30, 1.5)
    assert parse_broker("amqp://host?heartbeat=0", "x").heartbeat == 0
    assert parse_broker("amqp://host", "x").heartbeat is None


def test_neither_str_nor_repr_shows_the_password():
    broker = parse_broker(f"amqp://user:{SECRET}@host/a", "x")
    assert str(broker) == "amqp://user@host:5672/a"
    assert SECRET not in repr(broker)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must begin with amqp://"),
        ("localhost", "must begin with amqp://"),
        ("http://host", "must begin with amqp://"),
        ("amqp:host", "names no host"),
        ("amqp://", "names no host"),
        ("amqp://user:hunter2@/x", "names no host"),
        ("amqp://user:hunter2@:5672", "names no host"),
        ("amqp://host:port", "the port is no number"),
        ("amqp://host:0", "the port is no number"),
        ("amqp://host:65536", "the port is no number"),
        ("amqp://[::1", "cannot be parsed"),
        ("amqp://host/a/b", "%2F"),
        ("amqp://host?colour=red", "unknown parameter 'colour'; known are auth_mechanism, cacertfile, "),
        (
            "amqp://host?heartbeat=soon",
            "heartbeat= with no valid value; it must be a whole number of seconds in 0..65535",
        ),
        ("amqp://host?heartbeat=-1", "heartbeat="),
        ("amqp://host?heartbeat=65536", "heartbeat="),
        ("amqp://host?connection_timeout=0", "connection_timeout="),
        ("amqp://host?connection_timeout=-5", "connection_timeout="),
        ("amqps://host?verify=maybe", "verify="),
        ("amqp://host?auth_mechanism=scram", "auth_mechanism= with no valid value; it must be plain or external"),
        ("amqp://host?cacertfile=ca.pem", "amqp:// is plain; write amqps://"),
        ("amqp://host?verify=verify_none", "amqp:// is plain; write amqps://"),
        ("amqps://host?cacertfile=", "it must be the path of a file"),
        ("amqps://host?keyfile=key.pem", "names a key, but no certificate: add certfile="),
        ("amqps://host?auth_mechanism=external", "needs amqps:// and certfile="),
        ("amqp://host?auth_mechanism=external", "needs amqps:// and certfile="),
        ("amqp://a%2Fb", "what stands for the host is no host"),
        ("amqps://broker..example", "what stands for the host is no host"),
        ("amqp://xn--\u00fc", "what stands for the host is no host"),
        ("amqp://host?hunter2%2F=x", "unknown parameter; known are"),
        # Passwords that should have been escaped, wherever they end up:
        ("amqp://user:hunter2/x@host/", "written as %2F"),
        ("amqp://user:hunter2#x@host/", "%23"),
        ("amqp://user:hunter2?x@host/", "%3F"),
        ("amqp://user:1/hunter2@host", "%2F"),
        ("amqp://user:1/hunter2@host/x", "%2F"),
        ("amqp://user:1?hunter2@host/", "%3F"),
        ("amqp://user:1?x&hunter2=3@host/", "%3F"),
        ("amqp://user:1#hunter2@host/", "%23"),
        ("amqp://user:[hunter2@host/", "cannot be parsed"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str, message: str):
    with pytest.raises(ConfigurationError) as caught:
        parse_broker(url, "DOMAIN_EVENT_BROKER")
    assert message in str(caught.value)
    assert str(caught.value).startswith("DOMAIN_EVENT_BROKER")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text())
def test_any_text_is_a_broker_or_a_configuration_error(text: str):
    for url in (text, f"amqp://{text}", f"amqp://user:{text}@host/"):
        with contextlib.suppress(ConfigurationError):
            parse_broker(url, "x")


# Several URLs, and none


def test_none_is_offline():
    assert parse_brokers(None, "x") is None
    assert configured_brokers(None, "consumer") is None


@pytest.mark.parametrize(
    "settings",
    [
        ["amqp://a", "amqps://b"],
        ("amqp://a", "amqps://b"),
        "amqp://a,amqps://b",
        "  amqp://a , amqps://b, ",
        "amqp://a,\n  amqps://b\n",
    ],
)
def test_several_urls_are_the_nodes_of_a_cluster_in_this_order(settings: Any):
    assert [broker.host for broker in parse_brokers(settings, "x") or ()] == ["a", "b"]


def test_a_comma_in_a_password_does_not_separate():
    brokers = parse_brokers("amqp://user:a,b@one,amqp://user:c,@two", "x") or ()
    assert [(broker.host, broker.password) for broker in brokers] == [("one", "a,b"), ("two", "c,")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "empty list"),
        (5, "must be an AMQP URL, a list of them or None (offline), not int"),
        (b"amqp://a", "not bytes"),
        ({"host": "a"}, "not dict"),
        ([None], "an AMQP URL must be a string, not NoneType"),
        (["amqp://a", "b"], "must begin with amqp://"),
        ("amqp://a,b", "every URL of a list begins with amqp://"),
        ("amqp://a amqp://b", "no valid AMQP URL"),
        ("", "must begin with amqp://"),
    ],
)
def test_what_is_no_list_of_urls_is_refused(settings: Any, message: str):
    with pytest.raises(ConfigurationError) as caught:
        parse_brokers(settings, "DOMAIN_EVENT_BROKER")
    assert message in str(caught.value)
    assert str(caught.value).startswith("DOMAIN_EVENT_BROKER")


# Where they come from


@pytest.mark.parametrize("role", ROLES)
def test_without_configuration_it_is_the_default_broker(role: Role):
    expected = Broker(host="localhost", port=5672, virtual_host="/", user="guest", password="guest")
    assert configured_brokers(DEFAULT, role) == (expected,)


@pytest.mark.parametrize("role", ROLES)
def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, role: Role):
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert host_for(role) == "localhost"


def test_the_environment_names_one_broker_for_both_or_one_for_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://both")
    assert [host_for(role) for role in ROLES] == ["both", "both"]
    monkeypatch.setenv("DOMAIN_EVENT_PRODUCER_BROKER", "amqp://out")
    assert [host_for(role) for role in ROLES] == ["out", "both"]
    monkeypatch.setenv("DOMAIN_EVENT_CONSUMER_BROKER", "amqp://in")
    assert [host_for(role) for role in ROLES] == ["out", "in"]


def test_settings_are_read_when_asked_for_and_not_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://first")
    assert host_for("consumer") == "first"
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://second")
    assert host_for("consumer") == "second"


def test_a_bad_url_names_the_variable_it_stands_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOMAIN_EVENT_CONSUMER_BROKER", "nonsense")
    with pytest.raises(ConfigurationError, match=r"^DOMAIN_EVENT_CONSUMER_BROKER "):
        configured_brokers(DEFAULT, "consumer")
    assert host_for("producer") == "localhost"


def test_django_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, django: DjangoSettings):
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://environment")
    assert host_for("consumer") == "environment"
    django.values["DOMAIN_EVENT_BROKER"] = "amqp://django"
    assert host_for("consumer") == "django"
    monkeypatch.setenv("DOMAIN_EVENT_CONSUMER_BROKER", "amqp://environment")
    assert host_for("consumer") == "django"
    django.values["DOMAIN_EVENT_CONSUMER_BROKER"] = ["amqp://one", "amqp://two"]
    assert host_for("consumer") == "one"
    assert host_for("producer") == "django"


def test_none_in_django_settings_is_offline(monkeypatch: pytest.MonkeyPatch, django: DjangoSettings):
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", "amqp://environment")
    django.values["DOMAIN_EVENT_PRODUCER_BROKER"] = None
    assert configured_brokers(DEFAULT, "producer") is None
    assert host_for("consumer") == "environment"


def test_a_source_is_asked_once_however_often_it_was_added():
    asked: list[str] = []

    def source(name: str) -> object:
        asked.append(name)
        return NOT_SET

    add_source(source)
    add_source(source)
    configured_brokers(DEFAULT, "consumer")
    assert asked == ["DOMAIN_EVENT_CONSUMER_BROKER", "DOMAIN_EVENT_BROKER"]


def test_an_override_wins_over_all_but_an_explicit_argument(monkeypatch: pytest.MonkeyPatch, django: DjangoSettings):
    monkeypatch.setenv("DOMAIN_EVENT_CONSUMER_BROKER", "amqp://environment")
    django.values["DOMAIN_EVENT_BROKER"] = "amqp://django"
    override("amqp://override")
    assert [host_for(role) for role in ROLES] == ["override", "override"]
    assert host_for("consumer", "amqp://argument") == "argument"
    assert configured_brokers(None, "consumer") is None
    override(DEFAULT)
    assert host_for("consumer") == "django"


def test_an_explicit_producer_broker_stands_against_an_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOMAIN_EVENT_PRODUCER_BROKER", "amqp://out")
    override(["amqp://override"])
    assert [host_for(role) for role in ROLES] == ["out", "override"]


def test_an_override_may_be_offline():
    override(None)
    assert [configured_brokers(DEFAULT, role) for role in ROLES] == [None, None]


def test_a_bad_override_says_that_it_came_from_the_command_line():
    override("nonsense")
    with pytest.raises(ConfigurationError, match="command line"):
        configured_brokers(DEFAULT, "consumer")


def test_default_shows_its_name():
    assert repr(DEFAULT) == "DEFAULT"


def test_the_document_has_all_parameters():
    with pytest.raises(ConfigurationError) as caught:
        parse_broker("amqp://host?unknown=1", "x")
    known = str(caught.value).partition("known are ")[2].split(", ")
    assert sorted(row[0].strip("`") for row in table("docs/security.md", "parameter")) == known
