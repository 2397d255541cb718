"""Where HTTP may be served, and for whom: all of it known before anything is forked."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from domain_events.errors import ConfigurationError
from domain_events.supervisor.addresses import Address, address, find
from domain_events.supervisor.http_plan import LEAST_TOKEN, TOKEN_VARIABLE, plan_http, read_token
from domain_events.supervisor.http_process import Desk, HttpService
from domain_events.supervisor.options import Options

TOKEN = "t" * LEAST_TOKEN


def serve(desk: Desk) -> None:
    raise AssertionError("nobody serves here")


@pytest.mark.parametrize(
    ("text", "expected", "written"),
    [
        ("9100", Address("127.0.0.1", 9100), "127.0.0.1:9100"),
        (":9100", Address("127.0.0.1", 9100), "127.0.0.1:9100"),
        (" 0 ", Address("127.0.0.1", 0), "127.0.0.1:0"),
        ("0.0.0.0:80", Address("0.0.0.0", 80), "0.0.0.0:80"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        ("shop.example:80", Address("shop.example", 80), "shop.example:80"),
    ],
)
def test_an_address_is_read_and_written(text: str, expected: Address, written: str) -> None:
    assert address(text) == expected
    assert str(expected) == written


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":", "::1:9100", "[::1]", "a:b", "a:-1", "1:65536", "http://a:1", "a\n:1"]
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        address(text)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_known(host: str) -> None:
    place = find(Address(host, 0))
    assert place.is_loopback
    assert place.name == host


def test_localhost_is_where_people_expect_it() -> None:
    assert find(Address("localhost", 80)).host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_outside_of_loopback_a_token_is_needed(host: str) -> None:
    options = Options(http=Address(host, 80))
    with pytest.raises(ConfigurationError, match="needs a token"):
        plan_http(options, {}, serve)
    plan = plan_http(options, {TOKEN_VARIABLE: TOKEN}, serve)
    assert plan is not None
    assert plan.service == HttpService(serve=serve, token=TOKEN, hosts=(host,))
    assert TOKEN not in repr(plan)


def test_nobody_has_asked() -> None:
    assert plan_http(Options(), {}, serve) is None


def test_a_name_that_means_nothing_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"--http no\.such\.host\.invalid:80: there is no such address"):
        plan_http(Options(http=Address("no.such.host.invalid", 80)), {}, serve)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(ConfigurationError, match=r"needs starlette, .*pip install 'domain-events\[http\]'"):
        plan_http(Options(http=Address("127.0.0.1", 80)), {}, serve)


def test_the_file_wins_over_the_credential_and_that_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(f"\n{TOKEN}1\n")
    (tmp_path / "http-token").write_text(f"{TOKEN}2\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), TOKEN_VARIABLE: f"{TOKEN}3"}
    assert read_token(str(tmp_path / "file"), environ) == f"{TOKEN}1"
    assert read_token(None, environ) == f"{TOKEN}2"
    (tmp_path / "http-token").write_text("\n")  # as our unit's, where there is no such file
    assert read_token(None, environ) == f"{TOKEN}3"
    assert read_token(None, {TOKEN_VARIABLE: " "}) is None


@pytest.mark.parametrize(
    "token", ["short-token", "x" * 2000, "two words of a token", "t\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 20]
)
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_token(None, {TOKEN_VARIABLE: token})
    assert token not in str(caught.value)
    assert TOKEN_VARIABLE in str(caught.value)


def test_a_token_file_is_missing_or_everybody_may_write_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_token(str(path), {})
    path.write_text(TOKEN)
    os.chmod(path, 0o646)
    with pytest.raises(ConfigurationError, match="can be written by everybody"):
        read_token(str(path), {})
    path.write_bytes(b"\xff" * 20)
    os.chmod(path, 0o600)
    with pytest.raises(ConfigurationError, match="holds no text"):
        read_token(str(path), {})


def test_a_place_listens_and_says_who_is_there_already() -> None:
    place = find(Address("127.0.0.1", 0))
    with place.listen() as first:
        taken = find(Address("127.0.0.1", first.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            taken.listen()
        assert not first.getblocking()
        assert not first.get_inheritable()
        assert first.type == socket.SOCK_STREAM
