"""Which binding keys a routing key matches, and what somebody may have meant who matches none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.transport.routing import MOST_SUGGESTIONS, matches, suggestions

WORDS = st.sampled_from(["a", "b", "", "*", "#", "a#", "**"])
KEYS = st.lists(WORDS, max_size=5).map(".".join)


def by_the_definition(binding: list[str], routing: list[str]) -> bool:
    """`*` is one word, `#` is zero or more: word by word, as slow as that is."""
    if not binding:
        return not routing
    first, *rest = binding
    if first == "#":
        return any(by_the_definition(rest, routing[n:]) for n in range(len(routing) + 1))
    return bool(routing) and first in ("*", routing[0]) and by_the_definition(rest, routing[1:])


@pytest.mark.parametrize(
    ("binding_key", "routing_key", "matching"),
    [
        ("user.disabled", "user.disabled", True),
        ("user.disabled", "user.enabled", False),
        ("user.*", "user.disabled", True),
        ("user.*", "user", False),
        ("user.*", "user.a.b", False),
        ("user.#", "user", True),
        ("user.#", "user.a.b", True),
        ("#", "", True),
        ("*", "", False),
        ("", "", True),
        ("*", "a", True),
        ("*.*", ".", True),
        ("a.*", "a.", True),
        ("#.b", "a.b.c.b", True),
        ("#.b.#", "a.b.c", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "ab", False),
        ("a*", "ab", False),
        ("a*", "a*", True),
        ("User.*", "user.x", False),
    ],
)
def test_a_binding_key_matches(binding_key: str, routing_key: str, matching: bool) -> None:
    assert matches(binding_key, routing_key) is matching


@given(binding_key=KEYS, routing_key=KEYS)
def test_it_is_what_the_definition_says(binding_key: str, routing_key: str) -> None:
    def words(key: str) -> list[str]:
        return key.split(".") if key else []

    assert matches(binding_key, routing_key) == by_the_definition(words(binding_key), words(routing_key))


@given(routing_key=st.text())
def test_a_hash_matches_everything_and_each_key_itself(routing_key: str) -> None:
    assert matches("#", routing_key)
    assert matches("#.#", routing_key)
    assert matches(routing_key, routing_key)


def test_many_wildcards_take_no_time_to_speak_of() -> None:
    assert not matches(".".join(["#"] * 63 + ["x"]), ".".join(["a"] * 127))


@pytest.mark.parametrize(
    ("routing_key", "binding_keys", "meant"),
    [
        ("user.disbaled", ["user.disabled"], ["user.disabled"]),
        ("usr.disabled", ["user.*"], ["user.disabled"]),
        ("user.disbaled", ["#.disabled", "order.*"], ["user.disabled"]),
        ("User.Disabled", ["user.disabled"], ["user.disabled"]),
        ("user_disabled", ["user.disabled"], ["user.disabled"]),
        ("usr.a.b", ["user.#"], ["user.a.b"]),
        ("order.placed", ["user.disabled"], []),
        ("user.disabled", [], []),
        ("user.disabled", ["user.disabled"], []),
        ("user.enable", ["user.enabled", "user.disabled"], ["user.enabled", "user.disabled"]),
    ],
)
def test_what_was_meant(routing_key: str, binding_keys: list[str], meant: list[str]) -> None:
    assert suggestions(routing_key, binding_keys) == meant


@given(routing_key=KEYS, binding_keys=st.lists(KEYS, max_size=5))
def test_what_is_suggested_somebody_gets(routing_key: str, binding_keys: list[str]) -> None:
    found = suggestions(routing_key, binding_keys)
    assert len(found) <= MOST_SUGGESTIONS
    for suggestion in found:
        assert suggestion != routing_key
        assert any(matches(key, suggestion) for key in binding_keys)
