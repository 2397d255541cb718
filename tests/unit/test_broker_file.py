"""A file that names the broker: what may stand in it, who may write it, and when it is read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain_events import ConfigurationError, Sender
from domain_events.broker_file import BrokerFile
from domain_events.settings import DEFAULT, configured_brokers, override, parse_brokers
from domain_events.supervisor.brokers import check_brokers, use_broker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "broker"
    write(path, "amqp://first")
    return path


@pytest.fixture(autouse=True)
def no_override() -> Iterator[None]:
    yield
    override(DEFAULT)


def write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)


def hosts(path: Path) -> list[str]:
    return [broker.host for broker in BrokerFile(str(path))]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("amqp://a", ["a"]),
        ("amqp://a\n", ["a"]),
        ("amqp://a\r\n", ["a"]),
        ("\n\n  amqp://a \n\n", ["a"]),
        ("\ufeffamqp://a\n", ["a"]),
        ("amqp://a\namqps://b", ["a", "b"]),
        ("amqp://a,amqp://b", ["a", "b"]),
        ("amqp://a\n\n  amqp://b,\namqp://c , amqp://d\n", ["a", "b", "c", "d"]),
        ("# the old one: amqp://x\namqp://a\n  # amqp://y\n", ["a"]),
        ("\ufeff# a comment\namqp://a", ["a"]),
        ("amqp://user:a%2Cb,c@a", ["a"]),
    ],
)
def test_a_file_holds_one_url_or_several_and_comments(path: Path, text: str, named: list[str]) -> None:
    write(path, text)
    assert hosts(path) == named


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty; it must hold an AMQP URL"),
        (" \n,\n", "is empty"),
        ("# nothing yet\n", "is empty"),
        ("\n\namqp//user:hunter2@host", "line 3, is no valid AMQP URL: it must begin with amqp://"),
        ("amqp://a\namqp://user:hunter2/x@b", "line 2, is no valid AMQP URL"),
        ("file:///somewhere/hunter2", "line 1, is no valid AMQP URL"),
        ("DOMAIN_EVENT_BROKER=amqp://user:hunter2@host", "line 1, is no valid AMQP URL"),
        (b"amqp://user:hunter2\xff@host", "is no UTF-8 text"),
        (b"\x00hunter2", "line 1, is no valid AMQP URL"),
    ],
)
def test_what_is_no_url_is_named_by_its_file_and_line_and_not_repeated(
    path: Path, text: str | bytes, told: str
) -> None:
    write(path, text)
    with pytest.raises(ConfigurationError) as caught:
        hosts(path)
    assert str(caught.value).startswith(f"the broker file {path}")
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


@given(content=st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_brokers_or_a_configuration_error(path: Path, content: bytes) -> None:
    write(path, content)
    with contextlib.suppress(ConfigurationError):
        assert hosts(path)


def test_a_file_that_cannot_be_read_says_why(path: Path, tmp_path: Path) -> None:
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        hosts(path)
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        hosts(tmp_path)
    path.symlink_to(path)
    with pytest.raises(ConfigurationError, match="cannot be read: Too many levels"):
        hosts(path)


def test_a_file_that_everybody_may_write_is_refused(path: Path) -> None:
    path.chmod(0o602)
    with pytest.raises(ConfigurationError, match="everybody may write the broker file"):
        hosts(path)


def test_a_file_that_everybody_may_read_is_warned_of_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.chmod(0o640)
    hosts(path)
    assert not caplog.records
    path.chmod(0o604)
    hosts(path)
    hosts(path)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "chmod o-r" in record.message


def test_a_file_is_read_at_each_look(path: Path) -> None:
    file = BrokerFile(str(path))
    assert [broker.host for broker in file] == ["first"]
    write(path, "amqp://second,amqp://third")
    assert [broker.host for broker in file] == ["second", "third"]
    assert (len(file), file[1].host) == (2, "third")


def test_files_are_equal_when_their_paths_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    same = BrokerFile("broker")
    assert same == BrokerFile(str(path))
    assert len({same, BrokerFile(str(path))}) == 1
    assert same != BrokerFile("another")
    monkeypatch.chdir("/")
    assert [broker.host for broker in same] == ["first"]
    assert repr(same) == f"BrokerFile({str(path)!r})"


# As a setting: file:///path


@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_a_setting_may_name_a_file(path: Path, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", f"file://{path}")
    assert configured_brokers(DEFAULT, role) == BrokerFile(str(path))  # type: ignore[arg-type]


def test_the_path_in_a_setting_is_that_of_a_url() -> None:
    assert parse_brokers(" file:///run/a%20b ", "x") == BrokerFile("/run/a b")
    assert parse_brokers("file://localhost/run/broker", "x") == BrokerFile("/run/broker")


@pytest.mark.parametrize(
    "url", ["file:", "file://", "file:///", "file://run/broker", "file:///a?b=c", "file:///a#b", "file:///a%00b"]
)
def test_what_is_no_path_of_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no valid URL of a file: write file:///run/secrets/broker"):
        parse_brokers(url, "DOMAIN_EVENT_BROKER")


def test_a_file_need_not_be_there_when_the_program_is_imported(tmp_path: Path) -> None:
    Sender(f"file://{tmp_path}/later")


# Of the supervisor: --broker-file, and the credential


def chosen() -> list[str]:
    return [broker.host for broker in configured_brokers(DEFAULT, "consumer") or ()]


def test_the_supervisor_follows_its_broker_file(path: Path) -> None:
    use_broker(None, str(path), {})
    assert chosen() == ["first"]
    write(path, "amqp://second")
    assert chosen() == ["second"]


def test_the_supervisor_refuses_a_bad_file_at_once(path: Path) -> None:
    write(path, "amqp//user:secret@host")
    for url, file in ((None, str(path)), (f"file://{path}", None)):
        with pytest.raises(ConfigurationError) as caught:
            use_broker(url, file, {})
        assert "secret" not in str(caught.value)
    use_broker(None, None, {})
    check_brokers([])


def test_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"amqp://piped\n")
    os.close(writer)
    try:
        use_broker(None, f"/proc/self/fd/{reader}", {})  # as the shell's <(...)
    finally:
        os.close(reader)
    assert chosen() == chosen() == ["piped"]


def test_a_pipe_in_a_setting_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="is no regular file"):
        hosts(tmp_path / "pipe")


def test_the_credential_of_systemd_counts_unless_it_is_blank(path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(path.parent)}
    use_broker(None, None, environ)
    assert chosen() == ["first"]
    override(DEFAULT)
    write(path, "\n")
    use_broker(None, None, environ)
    assert chosen() == ["localhost"]
    path.unlink()
    use_broker(None, None, environ)
    assert chosen() == ["localhost"]
