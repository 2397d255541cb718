"""`domain-events watch` on a real broker: what is sent is seen, nobody misses it, and what was not seen is told."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from domain_events import Receiver, Sender
from domain_events.transport.watching import MOST_WAITING, NAME, PREFETCH
from tests.brokers import Broker, Queues
from tests.commands import OPERATOR, Running, operate, start
from tests.consuming import Seen, consuming
from tests.documents import table
from tests.relay import relay
from tests.secret import leaks, secret_url
from tests.waiting import wait_until

__all__ = ["start"]  # a fixture

Start = Callable[..., Running]
LISTENING = "listening to "


@pytest.fixture
def watch(start: Start, broker: Broker, unique: str) -> Start:
    """watch(*args): runs, and listens to this test's keys."""

    def watch(*args: str, url: str | None = None) -> Running:
        keys = [] if any(arg.startswith(unique) for arg in args) else [f"{unique}user.#"]
        watching = start("watch", *keys, *args, url=url or broker.url, TZ="UTC")
        watching.wait_err(LISTENING)
        return watching

    return watch


# What is seen


def test_events_are_shown_and_nobody_misses_them(watch: Start, broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(f"{unique}printer"), [f"{unique}user.#"])
    receiver.declare()
    watching = watch()
    with Sender(broker.url) as sender, consuming(receiver):
        sent = [sender.send(f"{unique}user.a", {"n": n}, domain_object_id=n, timestamp=0.0) for n in range(20)]
        seen.wait(20)
    lines = watching.wait_lines(20)
    assert lines == [
        f'1970-01-01 00:00:00.000 {unique}user.a {event.uuid_string} {n}  {{"n": {n}}}\n'
        for n, event in enumerate(sent)
    ]
    assert sorted(event.uuid_string for event in seen.events) == sorted(event.uuid_string for event in sent)
    watching.signal(signal.SIGINT)
    assert watching.end() == 0
    url = broker.urls[0].replace("guest:guest@", "guest@")
    assert watching.err == (
        f"domain-events: listening to {unique}user.# on exchange domain-events at {url}; Ctrl-C ends it\n"
    )


def test_an_event_of_today_has_a_clock_only(watch: Start, broker: Broker, unique: str) -> None:
    watching = watch()
    assert operate("send", f"{unique}user.a", "null", url=broker.url).returncode == 0
    [line] = watching.wait_lines(1)
    # At midnight the date of the day before is shown, too.
    assert re.fullmatch(
        rf"(\d{{4}}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{{3}} {unique}user\.a [0-9a-f-]{{36}} -  null\n", line
    )


def test_several_keys_and_each_event_once(watch: Start, broker: Broker, unique: str) -> None:
    watching = watch(f"{unique}user.*", "--json", f"{unique}user.#", f"{unique}order")
    with Sender(broker.url) as sender:
        sent = [sender.send(f"{unique}{key}", None) for key in ("user.a", "order", "nobody", "user.b")]
    shown = [json.loads(line) for line in watching.wait_lines(3)]
    assert [each["uuid_string"] for each in shown] == [sent[n].uuid_string for n in (0, 1, 3)]


def test_for_machines(watch: Start, broker: Broker, queues: Queues, unique: str) -> None:
    watching = watch("--json")
    event = Sender(broker.url).send(f"{unique}user.a", {"name": "Zoë\x1b"}, domain_object_id="7")
    queues.publish(f"{unique}user.b", b'{"routing_key": "\xff')
    first, second = (json.loads(line) for line in watching.wait_lines(2))
    assert watching.out.isascii()
    assert first.pop("received_at") == pytest.approx(time.time(), abs=60)
    assert first == {**json.loads(event.to_json()), "received_key": f"{unique}user.a", "problem": None}
    assert second["received_key"] == second["routing_key"] == f"{unique}user.b"
    assert second["problem"] == "the body is not UTF-8 (at byte 17)"
    assert second["body"] == '{"routing_key": "\\xff'
    assert second["data"] is None


def test_in_full(watch: Start, broker: Broker, unique: str) -> None:
    watching = watch("--full")
    Sender(broker.url).send(f"{unique}user.a", {"a": [1, "x\u2028\x1b[2J"]}, uuid_string="id")
    lines = watching.wait_lines(7)
    assert lines[0].endswith(f" {unique}user.a id -\n")
    assert "".join(lines[1:]) == '    {\n      "a": [\n        1,\n        "x\\u2028\\u001b[2J"\n      ]\n    }\n'


HOSTILE = "\x1b[2J\r\n\u202e\x9b\x07"


@pytest.mark.parametrize("shape", [(), ("--full",), ("--json",)], ids=["line", "full", "json"])
def test_nobody_can_write_to_the_terminal(
    watch: Start, broker: Broker, queues: Queues, unique: str, shape: tuple[str, ...]
) -> None:
    watching = watch(*shape)
    with Sender(broker.url) as sender:
        sender.send(f"{unique}user.a", {HOSTILE: HOSTILE}, domain_object_id=HOSTILE, uuid_string=HOSTILE)
    queues.publish(f"{unique}user.{HOSTILE}", HOSTILE.encode())
    queues.publish(f"{unique}user.a", json.dumps({"routing_key": HOSTILE, "data": 1}).encode())
    queues.publish(f"{unique}user.a", b'{"routing_key": "a", "data": 1, "timestamp": 1e300}')
    sender.send(f"{unique}user.end", "the end")
    sender.close()
    wait_until(lambda: "the end" in watching.out, 30)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", watching.out)
    assert watching.out.count("MALFORMED") + watching.out.count('"problem": "') == 2
    assert "1e+300" in watching.out


def test_a_terminal_is_not_wider_than_it_is(broker: Broker, unique: str) -> None:
    mine, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    command = [*OPERATOR, "watch", f"{unique}user.#", "--count", "3", "--broker", broker.url]
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE
    ) as watching:
        os.close(theirs)
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith(b"domain-events: listening")
        with Sender(broker.url) as sender:
            for data in ("short", "x" * 1_000_000, "\u0301" * 1000):
                sender.send(f"{unique}user.a", data, uuid_string="dc02f4dd-d35c-4989-997f-3a65500d9aaf")
        shown = b""
        try:
            while read := os.read(mine, 65536):
                shown += read
        except OSError:
            pass  # how the end of a terminal looks
        os.close(mine)
        assert watching.wait(60) == 0
    short, long, combining = shown.decode().splitlines()
    assert short.endswith(f'{unique}user.a dc02f4dd… -  "short"')
    assert long.endswith("xxx…")
    assert len(long) == 60
    assert combining.endswith("…")


# Which are shown


def test_conditions_choose(watch: Start, broker: Broker, queues: Queues, unique: str) -> None:
    watching = watch("--json", "--where", "data.user_id=7", "--where", "data.tags~new", "--grep", "dis(abled|missed)")
    with Sender(broker.url) as sender:
        for key, data in (
            ("user.disabled", {"user_id": 8, "tags": ["new"]}),
            ("user.disabled", {"user_id": 7, "tags": []}),
            ("user.enabled", {"user_id": 7, "tags": ["new"]}),
            ("user.enabled", {"user_id": 7, "tags": ["new", "dismissed"]}),
            ("user.disabled", {"user_id": "7", "tags": ["new"]}),
        ):
            sender.send(f"{unique}{key}", data)
        queues.publish(f"{unique}user.disabled", b"no JSON")
        sender.send(f"{unique}user.disabled", {"user_id": 7, "tags": ["new", "last"]})
    assert [json.loads(line)["data"]["tags"] for line in watching.wait_lines(3)] == [
        ["new", "dismissed"],
        ["new"],
        ["new", "last"],
    ]


def test_malformed_ones_are_found_by_their_text(watch: Start, queues: Queues, unique: str) -> None:
    watching = watch("--grep", "no JSON")
    queues.publish(f"{unique}user.a", b"this is no JSON\n")
    [line] = watching.wait_lines(1)
    assert "MALFORMED: the body is not JSON" in line
    assert line.endswith("no JSON\\n\n")


# How it ends


def test_count_and_timeout_end_it(start: Start, watch: Start, broker: Broker, unique: str) -> None:
    watching = watch("--count", "2")
    with Sender(broker.url) as sender:
        sender.send_many([(f"{unique}user.a", n) for n in range(5)])
    assert watching.end() == 0
    assert len(watching.lines) == 2
    # On a slow machine the time is over before it listens.
    assert start("watch", f"{unique}user.#", "--timeout", "0.2", url=broker.url).end() == 0
    short = start("watch", f"{unique}user.#", "--timeout", "0.2", "--count", "2", url=broker.url)
    assert short.end() == 1
    assert short.err.endswith("domain-events: 0 of 2 came\n")


def test_a_reader_that_has_seen_enough_ends_it(broker: Broker, unique: str) -> None:
    """Also when nothing more comes."""
    with subprocess.Popen(
        [*OPERATOR, "watch", f"{unique}user.#", "--broker", broker.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stderr.readline()
        with Sender(broker.url) as sender:
            sender.send(f"{unique}user.a", 1)
        assert watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(30) == 0
        assert watching.stderr.read() == b""


@pytest.mark.parametrize(
    "args",
    [
        ("a*",),
        ("a..b",),
        ("--exchange", "amq.topic"),
        ("--count", "0"),
        ("--count", "x"),
        ("--timeout", "0"),
        ("--grep", "("),
        ("--where", "user_id=7"),
        ("--json", "--full"),
    ],
)
def test_usage_is_2(args: tuple[str, ...]) -> None:
    done = operate("watch", *args, url="amqp://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_broker_that_is_away_is_3_and_one_that_refuses_1(broker: Broker, unique: str) -> None:
    away = operate("watch", url=secret_url("amqp://127.0.0.1:1", "guest"))
    assert (away.returncode, away.stdout, leaks(away.stderr)) == (3, "", [])
    refused = operate("watch", url=secret_url(broker.urls[0], f"{unique}nobody"))
    assert (refused.returncode, refused.stdout, leaks(refused.stderr)) == (1, "", [])
    none = operate("watch", "--exchange", f"{unique}nothing", url=broker.url)
    assert (none.returncode, f"no exchange '{unique}nothing'" in none.stderr) == (1, True)


# What is not seen


def test_an_outage_is_told_and_it_goes_on(watch: Start, broker: Broker, unique: str) -> None:
    with relay(broker.urls[0]) as wire, Sender(broker.url) as sender:
        watching = watch("--json", url=wire.url)
        sender.send(f"{unique}user.a", "before")
        watching.wait_lines(1)
        for times in (1, 2):
            wire.links[-1].cut()
            watching.wait_err("nothing is seen, as the broker is away: ", times)
            watching.wait_err("listening again; what was sent in the ", times)
            sender.send(f"{unique}user.a", "after")
            assert json.loads(watching.wait_lines(1 + times)[-1])["data"] == "after"
        watching.signal(signal.SIGINT)
        assert watching.end() == 0
        assert re.search(r"in the \d+\.\d s before was not seen", watching.err)


def most_waiting(broker: Broker) -> int:
    """Events in the longest queue of a watch, as the plugin counts them every few seconds: no one else may look."""
    request = urllib.request.Request(
        f"{broker.management_url}/api/queues", headers={"Authorization": "Basic Z3Vlc3Q6Z3Vlc3Q="}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return max((each.get("messages", 0) for each in json.load(answer) if each["name"].startswith(NAME)), default=0)


def test_a_slow_reader_costs_the_broker_no_more_than_the_bound(managed_broker: Broker, unique: str) -> None:
    """10 000 wait; of more than these the oldest are dropped, and that is told. The newest ones are seen."""
    url = managed_broker.url
    command = [*OPERATOR, "watch", f"{unique}user.#", "--json", "--broker", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert watching.stderr.readline()
        with Sender(url) as sender:
            for begin in range(0, MOST_WAITING + 3000, 1000):
                sender.send_many([(f"{unique}user.a", {"n": n}) for n in range(begin, begin + 1000)], timeout=60)
            last = sender.send(f"{unique}user.a", {"n": "last"})
        wait_until(lambda: most_waiting(managed_broker) >= MOST_WAITING, 30, "a full queue", pause=0.5)
        assert most_waiting(managed_broker) <= MOST_WAITING + PREFETCH
        seen = b""
        while last.uuid_string.encode() not in seen[-1000:]:
            ready, _, _ = select.select([watching.stdout], [], [], 30)
            assert ready, seen[-1000:]
            seen += os.read(watching.stdout.fileno(), 1 << 20)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        assert b"the broker has dropped some of the copies that it made for us" in watching.stderr.read()
    numbers = [json.loads(line)["data"]["n"] for line in seen.splitlines()]
    assert numbers[0] == 0
    assert numbers[-1] == "last"
    assert MOST_WAITING <= len(numbers) < MOST_WAITING + 3000


# Its queue


def test_its_queues_end_with_it_and_the_topology_is_not_concerned(
    start: Start, managed_broker: Broker, unique: str, tmp_path: Path
) -> None:
    url = managed_broker.url
    queues = Queues(url, unique)
    exchange = queues.forget_exchange_after(f"{unique}events")
    (tmp_path / "app.py").write_text(
        "from domain_events import Receiver\n"
        f"receiver = Receiver(exchange={exchange!r})\nreceiver.register(print, '{unique}r', ['{unique}a'])\n"
    )
    queues.forget_after(f"{unique}r")
    management = {"DOMAIN_EVENTS_MANAGEMENT": managed_broker.management_url}
    assert operate("topology", "apply", "app", url=url, cwd=tmp_path, **management).returncode == 0
    watching = start("watch", f"{unique}a", "--exchange", exchange, url=url)
    watching.wait_err(LISTENING)
    plan = json.loads(operate("topology", "plan", "app", "--json", url=url, cwd=tmp_path, **management).stdout)
    assert [each for each in plan["differences"] if unique in json.dumps(each) or NAME in json.dumps(each)] == []
    explain = ("explain", f"{unique}a", "--json", "--exchange", exchange)
    found = json.loads(operate(*explain, url=url, **management).stdout)["other_queues"]
    assert [each["temporary"] for each in found if each["queue"]["name"] != f"{unique}r"] == [True]
    watching.signal(signal.SIGKILL)

    def others() -> list[str]:
        found = json.loads(operate(*explain, url=url, **management).stdout)["other_queues"]
        return [each["queue"]["name"] for each in found]

    wait_until(lambda: others() == [f"{unique}r"], 30, "the end of the queue")
    queues.close()


@pytest.mark.owns_broker
def test_the_rights_of_the_document_are_enough_and_less_is_told(
    start: Start, broker: Broker, queues: Queues, unique: str
) -> None:
    queues.declare_watch(f"{unique}nothing")  # so that the exchange is there
    rights = {row[0]: [cell.strip("`") for cell in row[1:]] for row in table("docs/security.md", "login")}
    configure, write, read = rights["`domain-events watch`"]
    user = f"watcher-{unique}"
    broker.ctl("add_user", user, "pencil")
    url = secret_url(broker.urls[0], user, "pencil")
    for number, allowed in enumerate((write, "^domain-events-watch-")):
        broker.ctl("set_permissions", user, configure, allowed, read)
        watching = start("watch", f"{unique}user.a", "--count", "1", url=url)
        watching.wait_err(LISTENING)
        assert ("it will not be known" in watching.err) is bool(number)
        with Sender(broker.url) as sender:
            sender.send(f"{unique}user.a", number)
        assert watching.end() == 0
