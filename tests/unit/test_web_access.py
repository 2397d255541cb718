"""Tokens, sessions and forms: what is ours is known again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.web.access import SESSION, Access, Limiter, is_own_origin
from domain_events.web.guard import host_of, loopback_hosts

TOKEN = "the-token-of-these-tests"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_only_the_token_is_the_token() -> None:
    access = Access(TOKEN)
    assert access.is_token(TOKEN)
    for other in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\ud800"):
        assert not access.is_token(other)
    assert not Access(None).is_token("")
    assert not Access(None).has_token


def test_a_session_holds_for_twelve_hours_and_over_a_restart() -> None:
    clock = Clock()
    session = Access(TOKEN, clock).new_session()
    assert TOKEN not in session
    again = Access(TOKEN, clock)  # as after a restart
    assert again.is_session(session)
    clock.now += SESSION - 2
    assert again.is_session(session)
    clock.now += 4
    assert not again.is_session(session)


def test_another_token_ends_all_sessions() -> None:
    assert not Access("another-token-for-tests").is_session(Access(TOKEN).new_session())
    assert not Access(None).is_session(Access(None).new_session())


def test_a_session_cannot_be_prolonged_by_its_owner() -> None:
    clock = Clock()
    access = Access(TOKEN, clock)
    began, nonce, signature = access.new_session().split(".")
    assert not access.is_session(f"{int(began) + 1000}.{nonce}.{signature}")
    clock.now -= 10_000  # nor was it made in what is to come
    assert not access.is_session(f"{began}.{nonce}.{signature}")


@given(st.text())
def test_nothing_that_somebody_makes_up_is_a_session_or_a_form_of_ours(text: str) -> None:
    access = Access(TOKEN)
    assert not access.is_session(text)
    assert not access.is_form_token(text, access.new_session())


def test_a_form_belongs_to_its_session() -> None:
    access = Access(TOKEN)
    mine, other = access.new_session(), access.new_session()
    assert access.is_form_token(access.form_token(mine), mine)
    assert not access.is_form_token(access.form_token(other), mine)
    assert access.form_token(mine) not in mine


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://127.0.0.1:9100", "127.0.0.1:9100", True),
        ("https://Shop.example", "shop.example", True),
        ("http://127.0.0.1:9101", "127.0.0.1:9100", False),
        ("https://evil.example", "127.0.0.1:9100", False),
        ("http://127.0.0.1:9100.evil.example", "127.0.0.1:9100", False),
        ("null", "127.0.0.1:9100", False),
        ("", "", False),
        ("http://[", "[", False),
        ("http://", "", False),
        (None, "127.0.0.1:9100", False),
    ],
)
def test_a_form_comes_from_a_page_of_this_host(origin: str | None, host: str, is_own: bool) -> None:
    assert is_own_origin(origin, host) is is_own


def test_five_wrong_tokens_then_one_in_six_seconds() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    for _ in range(5):
        assert limiter.may_try("a")
        limiter.wrong("a")
    assert not limiter.may_try("a")
    assert limiter.may_try("b")
    clock.now += 5.9
    assert not limiter.may_try("a")
    clock.now += 0.2
    assert limiter.may_try("a")
    limiter.wrong("a")
    assert not limiter.may_try("a")
    clock.now += 1000
    for _ in range(5):
        assert limiter.may_try("a")
        limiter.wrong("a")


def test_many_addresses_do_not_fill_the_memory() -> None:
    limiter = Limiter(Clock())
    for number in range(5000):
        limiter.wrong(str(number))
    assert len(limiter._debts) == 1000


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:80", "localhost"),
        ("[::1]", "[::1]"),
        ("[::1]:9100", "[::1]"),
        ("127.0.0.1:", "127.0.0.1:"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_the_host_of_a_header(header: str, host: str) -> None:
    assert host_of(header) == host


def test_hosts_of_loopback() -> None:
    assert loopback_hosts("127.9.9.9", "::1", "Shop.example") == {
        "localhost",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "shop.example",
    }
