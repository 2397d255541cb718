"""The short ways through pika are in use, without TLS and with it, and what takes the long one is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pika.channel
import pytest

from domain_events import Receiver, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming


@pytest.fixture(params=["plain", "tls"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "plain":
        url: str = request.getfixturevalue("broker").url
        return url
    broker: Broker = request.getfixturevalue("tls_broker")
    return f"{broker.tls_url}?cacertfile={broker.cafile}"


@pytest.fixture
def name(url: str, request: pytest.FixtureRequest, unique: str) -> Iterator[str]:
    broker: Broker = request.getfixturevalue("tls_broker" if url.startswith("amqps") else "broker")
    queues = Queues(broker.url, unique)
    yield queues.forget_after(f"{unique}short")
    queues.close()


@pytest.fixture
def put_together(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The frames with content that pika was given, by their kind."""
    kinds: Counter[str] = Counter()
    process = pika.channel.ContentFrameAssembler.process

    def counting(self: Any, frame: Any) -> Any:
        kinds[type(frame).__name__] += 1
        return process(self, frame)

    monkeypatch.setattr(pika.channel.ContentFrameAssembler, "process", counting)
    return kinds


def received(url: str, name: str, data: list[Any]) -> list[Any]:
    """What a receiver is told of events that lie in its queue when it comes."""
    seen = Seen()
    receiver = Receiver(url)
    receiver.register(seen, name, [f"{name}.#"])
    receiver.declare()
    with Sender(url) as sender:
        sender.send_many([(f"{name}.made", each) for each in data])
    with consuming(receiver):
        seen.wait(len(data))
    return [event.data for event in seen.events]


def test_pika_puts_hardly_any_delivery_together(url: str, name: str, put_together: Counter[str]) -> None:
    data = [{"n": n} for n in range(1000)]
    assert received(url, name, data) == data
    # One that is at the end of a read may be larger than what is worth waiting for; these are not.
    assert put_together["Header"] == 0


def test_the_large_ones_it_does(url: str, name: str, put_together: Counter[str]) -> None:
    data = ["small", "x" * 1_000_000, "small again", "y" * 300_000, ""]
    assert received(url, name, data) == data
    assert put_together["Header"] == 2
    assert put_together["Body"] == 8 + 3  # frames of 128 KiB
