"""The password of a broker shows up nowhere: not in errors, not in objects, not in logs, not in those of pika."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import pprint
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain_events import (
    BrokerRefused,
    ConfigurationError,
    DeadLetter,
    DomainEvent,
    LoginRefused,
    Receiver,
    Retry,
    Sender,
    SendError,
)
from domain_events.settings import Broker as Node
from domain_events.settings import parse_broker, parse_brokers
from domain_events.transport.parameters import connection_parameters
from tests.brokers import Queues
from tests.consuming import Seen, consuming
from tests.relay import relay
from tests.secret import PASSWORD, everything_of, leaks, secret_login, secret_url

__all__ = ["secret_login"]  # a fixture

URL = secret_url("amqp://localhost:1/%2F", "app")
ENCODED = URL.split(":", 2)[2].rpartition("@")[0]
MALFORMED = [
    f"amqp://app:{PASSWORD}@localhost",
    f"app:{ENCODED}@localhost",
    f"amqp:/app:{ENCODED}@localhost",
    f"amqp//app:{ENCODED}@localhost",
    f"http://app:{ENCODED}@localhost",
    f"amqp://app@localhost:{ENCODED}",
    f"amqp://{ENCODED}",
    f"amqp://app:{ENCODED}@localhost:99999",
    f"amqp://app:{ENCODED}@[::1",
    f"amqp://app:{ENCODED}@",
    f"amqp://app:{ENCODED}@a,b",
    f"amqp://app:{ENCODED}@localhost/a/b",
    f"amqp://app:{ENCODED}@localhost?password={ENCODED}",
    f"amqp://app:{ENCODED}@localhost?{ENCODED}=1",
    f"amqp://app:{ENCODED}@localhost?heartbeat={ENCODED}",
    f"amqp://app:{ENCODED}@localhost?cacertfile=ca.pem",
    f"amqps://app:{ENCODED}@localhost?keyfile=key.pem",
    f"file://app:{ENCODED}@localhost/a",
]


def test_the_password_of_this_test_is_found_in_each_of_its_forms() -> None:
    assert leaks(PASSWORD)
    assert leaks(URL)
    assert all(map(leaks, MALFORMED))
    assert leaks(everything_of(ValueError(URL)))


@pytest.mark.parametrize("way", ["argument", "list", "environment", "file"])
@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_a_malformed_url_is_refused_without_its_password(
    number: int, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = MALFORMED[number]
    if way == "file":
        (tmp_path / "broker").write_text(url)
        (tmp_path / "broker").chmod(0o600)
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", url)
    settings: dict[str, Any] = {
        "argument": {"connection_settings": url},
        "list": {"connection_settings": [url]},
        "environment": {},
        "file": {"connection_settings": f"file://{tmp_path}/broker"},
    }
    with pytest.raises((ConfigurationError, SendError)) as caught:
        Sender(**settings[way]).send("a", 1, timeout=0.1)
    assert leaks(everything_of(caught.value)) == []


def test_objects_do_not_show_it(tmp_path: Path) -> None:
    sender, receiver = Sender(URL), Receiver([URL, URL])
    receiver.register(print, "secret", ["a"])
    node = parse_broker(URL, "test")
    assert node.password == PASSWORD
    (tmp_path / "broker").write_text(URL)
    file = parse_brokers(f"file://{tmp_path}/broker", "test")
    parameters = connection_parameters(node, "test")
    objects = [sender, receiver, *receiver.registrations, node, [node], file, parameters, parameters.credentials]
    for each in objects:
        shown = [repr(each), str(each), f"{each}", pprint.pformat(each)]
        if each is not parameters.credentials:  # pika's, which must hold it
            shown += [repr(vars(each)) if hasattr(each, "__dict__") else ""]
        assert leaks("\n".join(shown)) == [], type(each)


@pytest.fixture
def debugging(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything is logged, also by pika, as somebody would do who looks for a fault."""
    pika = logging.getLogger("pika")
    before = pika.level
    pika.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield caplog
    pika.setLevel(before)
    told = logging.Formatter("%(name)s %(message)s")
    assert leaks("\n".join(map(told.format, caplog.records))) == []


def fails(url: str, **options: Any) -> None:
    with pytest.raises(SendError) as caught:
        Sender(url).send("secret.a", 1, timeout=0.5, **options)
    assert leaks(everything_of(caught.value)) == []


def test_senders_that_fail_do_not_tell_it(
    secret_login: str, tmp_path: Path, debugging: pytest.LogCaptureFixture
) -> None:
    fails(URL)  # nobody listens
    fails(secret_login.replace("user-", "nobody-"))
    fails(secret_login.replace(ENCODED, f"{ENCODED}wrong"))
    fails(secret_login.replace("/%2F", "/nowhere"))
    fails(secret_login.replace("amqp:", "amqps:"))
    fails(secret_login.replace("amqp:", "amqps:") + f"?cacertfile={tmp_path}/nowhere")
    fails(secret_login, mandatory=True)
    with pytest.raises(SendError) as caught:
        Sender(URL).send_many([("secret.a", 1), ("secret.b", 2)], timeout=0.2)
    assert leaks(everything_of(caught.value)) == []
    assert "pika" in {record.name.partition(".")[0] for record in debugging.records}


def test_a_sender_takes_the_password_that_stands_in_its_file_when_it_connects(
    secret_login: str, tmp_path: Path
) -> None:
    def write(url: str) -> None:
        (tmp_path / "new").write_text(f"{url}\n")
        (tmp_path / "new").chmod(0o600)
        (tmp_path / "new").replace(tmp_path / "broker")

    with relay(secret_login) as line, Sender(f"file://{tmp_path}/broker") as sender:
        with pytest.raises(BrokerRefused, match="broker cannot be read: No such file"):
            sender.send("secret.a", 1)
        write(line.url.replace("user-", "nobody-"))
        with pytest.raises(LoginRefused) as caught:
            sender.send("secret.a", 2)
        assert leaks(everything_of(caught.value)) == []
        write(line.url)
        sender.send("secret.a", 3)
        opened = len(line.links)
        write("nonsense")  # of no interest, until it has to connect again
        sender.send("secret.a", 4)
        assert len(line.links) == opened
        line.cut()
        with pytest.raises(BrokerRefused, match="line 1, is no valid AMQP URL"):
            sender.send("secret.a", 5)
        write(line.url)
        sender.send("secret.a", 6)


def test_a_receiver_at_work_does_not_tell_it(
    secret_login: str, queues: Queues, unique: str, debugging: pytest.LogCaptureFixture
) -> None:
    def react(event: DomainEvent) -> None:
        if event.data == "dead":
            raise DeadLetter("no use")
        if event.data == "crash":
            raise ValueError("cannot be handled")
        if event.data == "retry" and not event.retries:
            raise Retry(0.1)

    name = queues.forget_after(f"{unique}secret", 100)
    seen = Seen(react)
    with relay(secret_login) as line:
        receiver = Receiver(line.url)
        receiver.register(seen, name, [f"{name}.#"], max_retries=1)
        receiver.declare()
        with consuming(receiver), Sender(line.url) as sender:
            sender.send_many([(f"{name}.a", kind) for kind in ("good", "dead", "crash", "retry")])
            seen.wait(5)
            line.cut()
            sender.send(f"{name}.a", "again")
            seen.wait(6)
    queues.wait_count(f"{name}:dead", 2)
    assert leaks(repr(queues.drain(f"{name}:dead"))) == []


def test_a_node_that_is_copied_by_force_still_has_it() -> None:
    # What a dataclass is made of, and what is pickled, is the whole of it; nothing of ours does either.
    node = parse_broker(URL, "test")
    assert dataclasses.asdict(node)["password"] == PASSWORD
    assert pickle.loads(pickle.dumps(node)) == node
    assert isinstance(node, Node)
