"""Telling the outcome of an event to whoever asks for it in its headers."""

from __future__ import annotations

import gc
import json
import threading
from typing import Any

from pika import BasicProperties

from domain_events.settings import configured_brokers
from domain_events.transport.copying import MOST_WORDS, Copying
from domain_events.transport.dead_letters.letter import Letter
from domain_events.transport.io_thread import IOThread
from domain_events.transport.outcomes import PREFIX
from domain_events.transport.publication import Publication
from domain_events.transport.wire import LARGE, OUTCOME_TO
from tests.deliveries import Desk, delivery, handling, runner


class Telling(Desk):
    """Keeps what is told, too."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, queue: str, body: bytes) -> None:
        self.told.append((queue, json.loads(body)))


def outcome(body: bytes, **properties: Any) -> dict[str, Any]:
    desk = Telling()
    asking = delivery(handling(lambda _event: None), body=body)
    asking.raw_properties = BasicProperties(headers={OUTCOME_TO: f"{PREFIX}me"}, **properties)
    runner(desk).run(asking)
    [(queue, said)] = desk.told
    assert queue == f"{PREFIX}me"
    letter = Letter(1, "printer:dead", asking.properties, body)
    assert said["id"] == letter.id, "whoever has replayed it would not know it"
    return said


def test_it_is_told_under_the_id_that_dead_letters_are_known_by() -> None:
    event = {"routing_key": "user.made", "data": 1, "uuid_string": "in the body"}
    large = {**event, "data": "x" * LARGE}
    for each in (event, large):
        body = json.dumps(each).encode()
        assert outcome(body)["kind"] == "handled"
        assert outcome(body, message_id="of the message")["kind"] == "handled"
    for garbage in (b"garbage", b"g" * LARGE):
        assert outcome(garbage)["kind"] == "dead-lettered"
        assert outcome(garbage, message_id="of the message")["kind"] == "dead-lettered"


def test_words_do_not_pile_up_while_nobody_takes_them() -> None:
    """A sender may let every event ask."""
    brokers = configured_brokers("amqp://127.0.0.1:1", "consumer")  # nobody is there
    assert brokers is not None
    crashes: list[BaseException] = []
    io = IOThread("test", crashes.append)
    copying = Copying(io, brokers, name="test", settled=lambda: None)
    told = threading.Event()

    def tell() -> None:
        for _ in range(3 * MOST_WORDS):
            copying.tell(f"{PREFIX}me", b"{}")
        told.set()

    before = _publications()
    io.start()
    io.call(tell)
    assert told.wait(60)
    assert 0 < _publications() - before <= MOST_WORDS
    closed = threading.Event()
    io.call(lambda: copying.close(closed.set))
    assert closed.wait(60)
    io.stop()
    assert crashes == []


def _publications() -> int:
    return sum(type(each) is Publication for each in gc.get_objects())
