"""`domain-events send` on a real broker: what it says is confirmed is there, and what is not is named."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest

from domain_events import DomainEvent
from tests.brokers import Broker, Queues
from tests.commands import OPERATOR, Running, operate, start
from tests.relay import relay
from tests.secret import leaks, secret_url

__all__ = ["start"]  # a fixture

NOWHERE = "amqp://guest:guest@127.0.0.1:1"


class Inbox:
    """A queue that gets what is sent under `key`."""

    def __init__(self, queues: Queues, unique: str) -> None:
        self.key = f"{unique}user.disabled"
        self._queues = queues
        self._name = queues.declare_watch(self.key)

    def wait_count(self, n: int) -> None:
        self._queues.wait_count(self._name, n)

    def wait(self, n: int) -> list[DomainEvent]:
        """All that has come, when that is so much."""
        self.wait_count(n)
        return [DomainEvent.from_json(body) for _, _, body in self._queues.drain(self._name)]

    @property
    def is_empty(self) -> bool:
        return self._queues.count(self._name) == 0


@pytest.fixture
def inbox(queues: Queues, unique: str) -> Inbox:
    return Inbox(queues, unique)


def sent_lines(events: list[DomainEvent]) -> str:
    return "".join(f"{event.uuid_string} {event.routing_key}\n" for event in events)


# One event


@pytest.mark.parametrize(
    "text", ['{"user_id": 1}', "17", "-5", "null", '"text"', "[]", " true ", '"grün \\ud83d\\ude00"']
)
def test_an_event_is_sent_and_named(inbox: Inbox, broker: Broker, text: str) -> None:
    done = operate("send", inbox.key, text, url=broker.url)
    assert (done.returncode, done.stderr) == (0, "")
    [event] = inbox.wait(1)
    assert event.data == json.loads(text)
    assert done.stdout == sent_lines([event])


def test_everything_about_it_can_be_said(inbox: Inbox, broker: Broker) -> None:
    flags = ["--id", "an id", "--domain-object-id", "7", "--timestamp", "2026-11-30T13:00:00+01:00", "--mandatory"]
    done = operate("send", *flags, inbox.key, "--json", '{"a": [1.5]}', url=broker.url)
    assert (done.returncode, done.stderr) == (0, "")
    [event] = inbox.wait(1)
    assert event == DomainEvent(inbox.key, {"a": [1.5]}, "7", "an id", 1_796_040_000.0)
    assert done.stdout == event.to_json() + "\n"


def test_data_comes_from_stdin_or_a_file(inbox: Inbox, broker: Broker, tmp_path: Path) -> None:
    pretty = '{\n  "from": "%s"\n}\n'
    file = tmp_path / "data.json"
    file.write_text("\ufeff" + pretty % "file")
    assert operate("send", inbox.key, "-", url=broker.url, stdin=pretty % "stdin").returncode == 0
    assert operate("send", inbox.key, "--file", str(file), url=broker.url).returncode == 0
    assert operate("send", inbox.key, "--file", "-", url=broker.url, stdin="1").returncode == 0
    assert [event.data for event in inbox.wait(3)] == [{"from": "stdin"}, {"from": "file"}, 1]


def test_nobody_to_get_it_is_no_error_unless_it_is_mandatory(broker: Broker, queues: Queues, unique: str) -> None:
    key = f"{unique}nobody.listens"
    assert operate("send", key, "1", url=broker.url).returncode == 0
    done = operate("send", key, "1", "--mandatory", url=broker.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"has no queue for the routing key '{key}'" in done.stderr
    assert f"domain-events explain {key}" in done.stderr


def test_another_exchange(broker: Broker, queues: Queues, unique: str) -> None:
    exchange = queues.forget_exchange_after(f"{unique}events")
    watching = queues.declare_watch("#", exchange=exchange)
    assert operate("send", "a.b", "1", "--exchange", exchange, url=broker.url).returncode == 0
    queues.wait_count(watching, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{user_id: 1}", "(line 1, column 2)"),
        ('{\n "a": 1,\n}', "column"),
        ("", "(line 1, column 1)"),
        ("text", "(line 1, column 1)"),
        ("{'a': 1}", "(line 1, column 2)"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e999", "too large"),
        ("9" * 5000, "DATA is no JSON"),
    ],
)
def test_what_is_no_json_is_2_with_its_place_and_how_to_quote(text: str, said: str) -> None:
    done = operate("send", "user.disabled", text, url=NOWHERE)  # nobody is asked
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "domain-events send user.disabled '{\"user_id\": 1}'" in done.stderr


@pytest.mark.parametrize("depth", [600, 3000])  # 3000: too deep for the json of 3.11, not of 3.13
def test_data_that_nests_deeper_than_events_may_is_refused(depth: int) -> None:
    done = operate("send", "user.disabled", "[" * depth + "]" * depth, url=NOWHERE)
    assert (done.returncode, "nested too deeply" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "args",
    [
        ("a.b",),
        ("a.*", "1"),
        ("", "1"),
        ("a.b", "1", "--file", "x"),
        ("a.b", "1", "--lines"),
        ("a.b", "--lines", "--id", "x"),
        ("a.b", "--file", "/nobody/is/here"),
        ("a.b", "--file", "/"),
        ("a.b", "--lines", "--file", "/"),
        ("a.b", "1", "--timestamp", "2026-11-30T12:00:00"),
        ("a.b", "1", "--timeout", "0"),
        ("a.b", "1", "--timeout", "nan"),
        ("a.b", "1", "--id", ""),
        ("a.b", "1", "--exchange", "amq.topic"),
        ("a.b", "1", "--broker", "http://x"),
        ("a.b", "1", "2"),
    ],
)
def test_usage_is_2(args: tuple[str, ...]) -> None:
    done = operate("send", *args, url=NOWHERE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: domain-events" in done.stderr


def test_bytes_that_are_no_utf_8_are_2() -> None:
    done = operate("send", "a.b", "-", url=NOWHERE, stdin=b'"\xff"')
    assert (done.returncode, "stdin is not UTF-8: byte 2" in done.stderr) == (2, True)


# Which broker


def test_the_producers_broker_counts_and_a_flag_wins(inbox: Inbox, broker: Broker, tmp_path: Path) -> None:
    producer = {"DOMAIN_EVENT_PRODUCER_BROKER": broker.url}
    away = {"DOMAIN_EVENT_PRODUCER_BROKER": NOWHERE, "DOMAIN_EVENT_CONSUMER_BROKER": NOWHERE}
    file = tmp_path / "broker"
    file.write_text(broker.url)
    file.chmod(0o600)
    assert operate("send", inbox.key, "1", url=NOWHERE, **producer).returncode == 0
    assert operate("send", inbox.key, "2", "--broker", broker.url, **away).returncode == 0
    assert operate("send", inbox.key, "3", "--broker-file", str(file), **away).returncode == 0
    assert operate("send", inbox.key, "4", url=NOWHERE, CREDENTIALS_DIRECTORY=str(tmp_path)).returncode == 0
    assert [event.data for event in inbox.wait(4)] == [1, 2, 3, 4]


def test_djangos_settings_count_where_there_are_any(inbox: Inbox, broker: Broker, tmp_path: Path) -> None:
    settings = 'INSTALLED_APPS = ["domain_events.django"]\nDOMAIN_EVENT_BROKER = {}\n'
    (tmp_path / "here.py").write_text(settings.format(repr(broker.url)))
    (tmp_path / "offline.py").write_text(settings.format(None))

    def send(settings: str) -> tuple[int, str]:
        done = operate("send", inbox.key, "1", url=NOWHERE, cwd=tmp_path, DJANGO_SETTINGS_MODULE=settings)
        return done.returncode, done.stderr

    assert send("here") == (0, "")
    assert len(inbox.wait(1)) == 1
    code, said = send("offline")
    assert (code, "this is offline" in said) == (2, True)


def test_a_broker_that_is_away_is_3_and_one_that_refuses_1(broker: Broker, unique: str) -> None:
    done = operate("send", "a.b", "1", "--timeout", "0.5", url=secret_url(NOWHERE, "guest"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "127.0.0.1:1/%2F: Connection refused" in done.stderr
    assert leaks(done.stderr) == []
    done = operate("send", "a.b", "1", url=secret_url(broker.urls[0], f"{unique}nobody"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused the login" in done.stderr
    assert leaks(done.stderr) == []


# Many


def test_each_line_is_an_event(inbox: Inbox, broker: Broker) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(2500))
    done = operate("send", inbox.key, "--lines", url=broker.url, stdin=f"\n{lines}\r\n  \n2500")
    assert (done.returncode, done.stderr) == (0, "domain-events: 2501 events are confirmed\n")
    events = inbox.wait(2501)
    assert [event.data for event in events] == [*({"n": n} for n in range(2500)), 2500]
    assert done.stdout == sent_lines(events)


def test_no_line_is_no_event(inbox: Inbox, broker: Broker) -> None:
    done = operate("send", inbox.key, "--lines", "--file", "/dev/null", url=broker.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "domain-events: 0 events are confirmed\n")


def test_lines_are_sent_as_they_come(inbox: Inbox, broker: Broker, start: Callable[..., Running]) -> None:
    sending = start("send", inbox.key, "--lines", "--json", url=broker.url)
    for n in range(3):
        sending.write(f"{n}\n")
        assert json.loads(sending.wait_lines(n + 1)[-1])["data"] == n
    sending.signal(signal.SIGINT)
    assert sending.end() == 130
    assert sending.err == "domain-events: interrupted: 3 events are confirmed; what comes after line 3 was not sent\n"
    assert [event.data for event in inbox.wait(3)] == [0, 1, 2]


def test_a_line_that_is_no_json_stops_after_those_before_it(inbox: Inbox, broker: Broker) -> None:
    done = operate("send", inbox.key, "--lines", url=broker.url, stdin="1\n2\n\n{x}\n5\n")
    assert done.returncode == 1
    assert "stdin is no JSON (line 4, column 2)" in done.stderr
    assert "2 events are confirmed; what comes after line 2 was not sent" in done.stderr
    events = inbox.wait(2)
    assert [event.data for event in events] == [1, 2]
    assert done.stdout == sent_lines(events)
    done = operate("send", inbox.key, "--lines", url=broker.url, stdin="{x}\n5\n")
    assert (done.returncode, done.stdout, "(line 1, column 2)" in done.stderr) == (2, "", True)
    assert inbox.is_empty


def test_those_that_are_not_confirmed_are_named(broker: Broker, queues: Queues, unique: str) -> None:
    """A queue that takes three refuses the others."""
    name = queues.forget_after(f"{unique}full")
    queues.channel.exchange_declare("domain-events", "topic", durable=True)
    queues.channel.queue_declare(name, durable=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    queues.channel.queue_bind(name, "domain-events", f"{unique}a")
    done = operate("send", f"{unique}a", "--lines", url=broker.url, stdin="1\n2\n3\n\n5\n6\n")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    told = done.stderr.splitlines()
    assert told[0] == "domain-events: stopped: 3 events are confirmed; what comes after line 6 was not sent"
    assert told[1].startswith("domain-events: not confirmed: lines 5-6: ")
    assert [json.loads(body)["data"] for _, _, body in queues.drain(name)] == [1, 2, 3]


def test_all_that_nobody_would_get_is_named(broker: Broker, unique: str) -> None:
    done = operate("send", f"{unique}a", "--lines", "--mandatory", url=broker.url, stdin="1\n2\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "stopped: 0 events are confirmed" in done.stderr
    assert "not confirmed: lines 1-2: " in done.stderr


def test_ctrl_c_leaves_no_doubt(inbox: Inbox, broker: Broker, start: Callable[..., Running], tmp_path: Path) -> None:
    """What is under way is waited for: what is printed as confirmed is exactly what is in the queue."""
    file = tmp_path / "lines"
    file.write_text("".join(f"{n}\n" for n in range(200_000)))
    sending = start("send", inbox.key, "--lines", "--file", str(file), url=broker.url)
    sending.wait_lines(1)
    sending.signal(signal.SIGINT)
    assert sending.end() == 130
    n = len(sending.lines)
    assert 0 < n < 200_000
    assert f"interrupted: {n} events are confirmed; what comes after line {n} was not sent" in sending.err
    assert sent_lines(inbox.wait(n)) == sending.out


def test_a_second_ctrl_c_does_not_wait_and_says_what_is_in_doubt(
    inbox: Inbox, broker: Broker, start: Callable[..., Running]
) -> None:
    with relay(broker.urls[0]) as wire:
        sending = start("send", inbox.key, "--lines", "--timeout", "600", url=wire.url)
        sending.write("0\n")
        sending.wait_lines(1)
        wire.deaf = True  # and it cannot ask over another connection
        wire.links[0].hold(down=True)  # the confirms stay away
        sending.write("1\n2\n")
        inbox.wait_count(3)
        sending.signal(signal.SIGINT)
        sending.wait_err("waiting for the confirms of what is under way")
        sending.signal(signal.SIGINT)
        assert sending.end() == 130
    assert "interrupted: 1 event is confirmed; what comes after line 3 was not sent" in sending.err
    assert "perhaps sent: lines 2-3" in sending.err
    assert len(sending.lines) == 1


def test_a_full_disk_does_not_hide_what_was_confirmed(inbox: Inbox, broker: Broker) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*OPERATOR, "send", inbox.key, "1", "--broker", broker.url],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "domain-events: cannot write to stdout: No space left on device; the event is confirmed\n"
    assert len(inbox.wait(1)) == 1


def test_properties_are_those_of_every_event_of_ours(broker: Broker, queues: Queues, unique: str) -> None:
    watching = queues.declare_watch(f"{unique}a")
    assert operate("send", f"{unique}a", "1", url=broker.url, DOMAIN_EVENT_APP_ID="shop").returncode == 0
    queues.wait_count(watching, 1)
    message: Any = queues.get(watching)
    properties: pika.BasicProperties = message[1]
    assert (properties.content_type, properties.delivery_mode, properties.app_id) == ("application/json", 2, "shop")
