"""Which routing keys, binding keys and receiver names are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.errors import DomainEventError, InvalidName
from domain_events.names import (
    check_binding_key,
    check_exchange_name,
    check_receiver_name,
    check_routing_key,
)

CHECKS = [check_routing_key, check_binding_key, check_receiver_name, check_exchange_name]


@pytest.mark.parametrize(
    "key", ["user", "user.disabled", "a.b.c", "größe.geändert", "with space", "x" * 255, "ü" * 127]
)
def test_a_routing_key_is_returned_as_it_is(key: str):
    assert check_routing_key(key) == key
    assert check_binding_key(key) == key


@pytest.mark.parametrize("key", ["*", "#", "user.*", "user.a*", "user.#", "u#ser"])
def test_a_routing_key_holds_no_wildcard(key: str):
    with pytest.raises(InvalidName, match="wildcard"):
        check_routing_key(key)


@pytest.mark.parametrize("key", ["*", "#", "user.*", "#.disabled", "*.*.#", "a.*.b"])
def test_a_binding_key_may_hold_wildcards_as_whole_words(key: str):
    assert check_binding_key(key) == key


@pytest.mark.parametrize("key", ["user*", "user.a*", "##", "user.#x", "**"])
def test_a_wildcard_in_a_word_is_refused_and_the_word_named(key: str):
    with pytest.raises(InvalidName, match="whole word") as caught:
        check_binding_key(key)
    assert repr(key.split(".")[-1]) in str(caught.value)


@pytest.mark.parametrize("check", [check_routing_key, check_binding_key])
@pytest.mark.parametrize("key", [".", "a.", ".a", "a..b"])
def test_an_empty_word_is_refused(check: Any, key: str):
    with pytest.raises(InvalidName, match="empty word") as caught:
        check(key)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "must not be empty"),
        (None, "must be a string, not NoneType"),
        (b"user", "must be a string, not bytes"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("a\u202eb", "control character"),
        ("\ud800", "lone surrogate"),
        ("x" * 256, "has 256 bytes"),
        ("ü" * 128, "has 256 bytes"),
    ],
)
def test_what_the_broker_or_a_log_cannot_bear_is_refused_everywhere(check: Any, value: Any, message: str):
    with pytest.raises(InvalidName, match=message) as caught:
        check(value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DomainEventError)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["printer", "sync data", "a.b", "a:b", "dead", "x:deadly", "retry", "x" * 200, "amq"])
def test_a_receiver_name_is_returned_as_it_is(name: str):
    assert check_receiver_name(name) == name


def test_a_receiver_name_leaves_room_for_the_names_of_its_queues():
    with pytest.raises(InvalidName, match="has 201 bytes; the longest is 200"):
        check_receiver_name("x" * 201)
    with pytest.raises(InvalidName, match="has 202 bytes"):
        check_receiver_name("ü" * 101)


@pytest.mark.parametrize("name", ["amq.x", "amq.", "x:dead", ":dead", "x:retry:5", ":retry:"])
def test_a_reserved_receiver_name_is_refused_by_name(name: str):
    with pytest.raises(InvalidName) as caught:
        check_receiver_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["domain-events", "amq", "a.b", "x" * 255])
def test_an_exchange_name_is_returned_as_it_is(name: str):
    assert check_exchange_name(name) == name


def test_an_exchange_of_the_broker_is_refused_by_name():
    with pytest.raises(InvalidName, match=r"exchange 'amq\.topic'"):
        check_exchange_name("amq.topic")


def test_a_long_name_is_not_repeated_at_full_length():
    with pytest.raises(InvalidName) as caught:
        check_routing_key("x" * 100_000)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_a_good_routing_key_is_a_good_binding_key(key: str):
    try:
        check_routing_key(key)
    except InvalidName:
        return
    assert check_binding_key(key) == key
    assert 1 <= len(key.encode()) <= 255
