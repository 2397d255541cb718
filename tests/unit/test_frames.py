"""What we write of an event is byte for byte what pika would have written, and joined into few writes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties, exceptions
from pika.channel import Channel
from pika.connection import Connection

from domain_events import DomainEvent
from domain_events.transport.frames import frames_of
from domain_events.transport.outgoing import LARGEST_WRITE, Outgoing
from domain_events.transport.publication import Publication
from domain_events.transport.wire import event_properties

LARGEST = 1000
"""Bytes of a body in one frame here."""


class Wire:
    """Stands for pika's connection: writes down what it would send. What it does itself is pika's own code."""

    is_open = True
    _body_max_length = LARGEST
    _send_message = Connection._send_message

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def _output_marshaled_frames(self, frames: list[bytes]) -> None:
        self.writes += frames


class Publishing(Channel):
    """pika's channel, open on such a wire."""

    def __init__(self, wire: Any, number: int = 1) -> None:
        self.connection = wire
        self.channel_number = number
        self._state = self.OPEN

    def _send_method(self, method: Any, content: Any = None) -> None:
        self.connection._send_message(self.channel_number, method, content)


def pikas(channel: int, exchange: str, key: str, properties: BasicProperties, body: bytes, mandatory: bool) -> bytes:
    wire = Wire()
    Publishing(wire, channel).basic_publish(exchange, key, body, properties, mandatory=mandatory)
    return b"".join(wire.writes)


short = st.text(max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
some_properties = st.builds(
    BasicProperties,
    content_type=st.none() | short,
    content_encoding=st.none() | short,
    headers=st.none() | st.dictionaries(st.text(max_size=20), values, max_size=4),
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    expiration=st.none() | short,
    message_id=st.none() | short,
    timestamp=st.none() | st.integers(0, 2**64 - 1),
    type=st.none() | short,
    user_id=st.none() | short,
    app_id=st.none() | short,
    cluster_id=st.none() | short,
)
ours = st.builds(
    lambda key, stamp, app_id: event_properties(DomainEvent(key, None, timestamp=stamp), app_id),
    st.sampled_from(["a", "order.placed", "käse.gegessen", "a" * 255]),
    st.floats(-1.0, 1e12) | st.just(0.0),
    st.none() | st.just("shop"),
)


@given(
    channel=st.integers(1, 65535),
    exchange=short,
    key=short,
    properties=ours | some_properties,
    body=st.binary(max_size=300) | st.integers(LARGEST - 1, 3 * LARGEST + 1).map(bytes),
    mandatory=st.booleans(),
)
@example(1, "domain-events", "a.b", event_properties(DomainEvent("a.b", 1)), b"", False)
@example(1, "domain-events", "a.b", event_properties(DomainEvent("a.b", 1)), bytes(LARGEST), True)
@example(1, "", "q:retry:1000", BasicProperties(headers={"t": datetime(2026, 1, 1, tzinfo=UTC)}), b"x", True)
@example(1, "", "q:dead", BasicProperties(headers={"d": Decimal("1.5"), "n": {"a": [1]}}, delivery_mode=2), b"x", True)
@example(1, "", "q", BasicProperties(), b"x", False)
def test_frames_are_those_of_pika(
    channel: int, exchange: str, key: str, properties: BasicProperties, body: bytes, mandatory: bool
) -> None:
    written = frames_of(channel, exchange, key, properties, body, mandatory=mandatory, largest=LARGEST)
    assert b"".join(written) == pikas(channel, exchange, key, properties, body, mandatory)
    assert len(written) == max(1, -(-len(body) // LARGEST))


@pytest.mark.parametrize(
    "properties",
    [
        BasicProperties(message_id="m" * 256),
        event_properties(DomainEvent("a.b", 1), "a" * 256),
        BasicProperties(headers={"x": object()}),
    ],
)
def test_what_pika_cannot_write_is_not_written(properties: BasicProperties) -> None:
    unwritable = (ValueError, exceptions.AMQPError)
    with pytest.raises(unwritable):
        pikas(1, "", "q", properties, b"", mandatory=False)
    with pytest.raises(unwritable):
        frames_of(1, "", "q", properties, b"", mandatory=False, largest=LARGEST)


def test_a_routing_key_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ValueError, match="256"):
        frames_of(1, "", "k" * 256, BasicProperties(), b"", mandatory=False, largest=LARGEST)


# Joined


def publication(number: int, size: int = 10) -> Publication:
    return Publication(
        exchange="x",
        routing_key=f"key.{number}",
        properties=BasicProperties(message_id=str(number)),
        body=bytes(size),
        mandatory=False,
        done=lambda error: None,
    )


def by_pika(publications: list[Publication]) -> bytes:
    return b"".join(
        pikas(1, each.exchange, each.routing_key, each.properties, each.body, False) for each in publications
    )


def test_events_are_written_together_in_their_order() -> None:
    wire = Wire()
    outgoing = Outgoing(Publishing(wire))
    events = [publication(number) for number in range(50)]
    for event in events:
        outgoing.add(event)
    assert wire.writes == []
    outgoing.flush()
    outgoing.flush()
    assert wire.writes == [by_pika(events)]


def test_what_is_much_is_written_before_the_end() -> None:
    wire = Wire()
    outgoing = Outgoing(Publishing(wire))
    events = [publication(number, LARGEST) for number in range(2 * LARGEST_WRITE // LARGEST)]
    for event in events:
        outgoing.add(event)
    assert len(wire.writes) == 2
    outgoing.flush()
    assert len(wire.writes) == 3
    assert b"".join(wire.writes) == by_pika(events)


def test_the_frames_of_a_large_body_are_written_one_by_one() -> None:
    wire = Wire()
    outgoing = Outgoing(Publishing(wire))
    events = [publication(1), publication(2, 3 * LARGEST), publication(3)]
    for event in events:
        outgoing.add(event)
    outgoing.flush()
    assert b"".join(wire.writes) == by_pika(events)
    assert len(wire.writes) == 4
    assert max(map(len, wire.writes[1:])) <= LARGEST + 8


class StrangeWire(Wire):
    """Of a pika that sends its frames in another way."""

    _output_marshaled_frames = None  # type: ignore[assignment]

    def _send_message(self, channel_number: int, method: Any, content: Any) -> None:
        self.writes.append(content[1])


def test_a_pika_of_another_make_publishes_itself() -> None:
    wire = StrangeWire()
    outgoing = Outgoing(Publishing(wire))
    outgoing.add(publication(1))
    outgoing.add(publication(2))
    outgoing.flush()
    assert wire.writes == [bytes(10), bytes(10)]
