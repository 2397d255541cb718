"""What is cut out of the byte stream is what pika would have made of it, however the bytes arrive."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties, exceptions, frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from domain_events.transport.confirms import Confirms
from domain_events.transport.deliveries import LONGEST_WAIT, Deliveries
from domain_events.transport.direct import DirectConnection
from domain_events.transport.tolerance import decode_properties, is_plain_json
from domain_events.transport.wire import Progress, read_progress

OURS = "ctag1.ours"


@dataclass
class Reader:
    """A connection without a network, that writes down what a consumer on channel 1 is told, and all other frames."""

    cuts: bool
    told: list[Any] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    cut: int = 0

    def __post_init__(self) -> None:
        self.connection = Link(self)
        self.channel = Assembling(self)
        self.connection._channels[1] = self.channel
        self.connection._channels[2] = Assembling(self, foreign=True)
        if self.cuts:
            self.connection.deliveries.expect(1, OURS, self.on_cut)

    def on_cut(self, tag: int, key: str, properties: bytes, body: bytes) -> None:
        self.cut += 1
        self.note(tag, key, decode_properties(properties), body)

    def note(self, tag: int, key: str, properties: BasicProperties, body: bytes) -> None:
        self.told.append((tag, key, vars(properties), body))

    def feed(self, stream: bytes, pieces: list[int]) -> Reader:
        while stream:
            size = pieces.pop(0) if pieces else len(stream)
            self.connection._on_data_available(stream[:size])
            stream = stream[size:]
        return self


class Link(DirectConnection):
    def __init__(self, reader: Reader) -> None:
        self.deliveries = Deliveries()
        self.confirms = Confirms()
        self._frame_buffer = b""
        self.bytes_received = 0
        self._channels: dict[int, Any] = {}
        self.reader = reader

    def _process_frame(self, value: Any) -> None:
        if value.channel_number in self._channels:
            self._channels[value.channel_number]._handle_content_frame(value)
        else:
            self.reader.others.append(value.NAME)


class Assembling(pika.channel.Channel):
    """pika's own way of putting frames together."""

    def __init__(self, reader: Reader, foreign: bool = False) -> None:
        self.reader = reader
        self.foreign = foreign
        self._content_assembler = pika.channel.ContentFrameAssembler()

    def _on_unexpected_frame(self, frame_value: Any) -> None:
        self.reader.others.append(frame_value.method.NAME)

    def _on_deliver(self, method_frame: Any, header_frame: Any, body: bytes) -> None:
        method = method_frame.method
        if self.foreign or method.consumer_tag != OURS:
            self.reader.others.append(f"{method.consumer_tag} {len(body)}")
            return
        key = method.routing_key
        text = key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
        self.reader.note(method.delivery_tag, text, header_frame.properties, body)


def delivery(
    body: bytes,
    properties: BasicProperties | None = None,
    *,
    tag: int = 1,
    key: str = "user.made",
    exchange: str = "domain-events",
    redelivered: bool = False,
    consumer: str = OURS,
    channel: int = 1,
    largest: int = 131072,
) -> bytes:
    """As a broker sends it, in frames of `largest` bytes."""
    method = spec.Basic.Deliver(consumer, tag, redelivered, exchange, key)
    frames = [frame.Method(channel, method), frame.Header(channel, len(body), properties or BasicProperties())]
    room = largest - 8
    frames += [frame.Body(channel, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join(each.marshal() for each in frames)


def both(stream: bytes, pieces: list[int] | None = None) -> tuple[Reader, Reader]:
    """Read with and without the short way: the same must come out."""
    with_, without = (Reader(cuts).feed(stream, list(pieces or [])) for cuts in (True, False))
    assert with_.told == without.told
    assert with_.others == without.others
    assert with_.connection.bytes_received == without.connection.bytes_received or with_.connection._frame_buffer
    return with_, without


PROPERTIES = BasicProperties(
    content_type="application/json",
    content_encoding="utf-8",
    delivery_mode=2,
    message_id="an-id",
    timestamp=7,
    type="a",
)


def test_whole_deliveries_are_cut_and_pika_sees_none_of_them() -> None:
    stream = b"".join(delivery(b"%d" % n, PROPERTIES, tag=n, redelivered=n % 2 == 1) for n in range(1, 101))
    cutting, _ = both(stream)
    assert cutting.cut == len(cutting.told) == 100
    assert [told[0] for told in cutting.told] == list(range(1, 101))
    assert cutting.connection._frame_buffer == b""


@pytest.mark.parametrize("size", [1, 2, 7, 8, 11, 60, 100, 4096])
def test_they_may_come_in_pieces_of_any_size(size: int) -> None:
    stream = b"".join(delivery(b"x" * n, PROPERTIES, tag=n) for n in range(1, 40))
    cutting, _ = both(stream, [size] * (len(stream) // size))
    assert cutting.cut == 39


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, LONGEST_WAIT, 131064, 131065, 1_000_000])
@pytest.mark.parametrize("largest", [4096, 131072])
def test_bodies_of_any_size_in_any_number_of_frames(size: int, largest: int) -> None:
    body = bytes(n % 251 for n in range(size))
    stream = delivery(b"before") + delivery(body, PROPERTIES, largest=largest) + delivery(b"after", tag=2)
    for read in (512, 65536, len(stream)):
        cutting, _ = both(stream, [read] * (len(stream) // read))
        assert [told[3] for told in cutting.told] == [b"before", body, b"after"]


def test_others_go_pikas_way_in_their_order() -> None:
    heartbeat = frame.Heartbeat().marshal()
    ack = frame.Method(1, spec.Basic.Ack(3)).marshal()
    stream = b"".join(
        [
            heartbeat,
            delivery(b"1", tag=1),
            delivery(b"for another consumer", consumer="ctag1.other"),
            delivery(b"on another channel", channel=2),
            ack,
            delivery(b"2", tag=2),
            heartbeat,
            delivery(b"3", tag=3),
        ]
    )
    for size in (1, 9, 50, len(stream)):
        cutting, _ = both(stream, [size] * (len(stream) // size))
        assert [told[3] for told in cutting.told] == [b"1", b"2", b"3"]
        assert len(cutting.others) == 5
    assert cutting.cut == 3


def test_a_consumer_that_leaves_in_the_middle_of_a_read_gets_the_rest_from_pika() -> None:
    reader = Reader(cuts=True)

    def leave(tag: int, *rest: Any) -> None:
        reader.on_cut(tag, *rest)
        reader.connection.deliveries.leave(1)

    reader.connection.deliveries.expect(1, OURS, leave)
    reader.feed(delivery(b"1", tag=1) + delivery(b"2", tag=2) + delivery(b"3", tag=3), [])
    assert [told[3] for told in reader.told] == [b"1", b"2", b"3"]
    assert reader.cut == 1


texts = st.text(st.characters(codec="utf-8"), max_size=60)
headers = st.dictionaries(
    texts, st.one_of(texts, st.integers(-(2**31), 2**31 - 1), st.booleans(), st.none()), max_size=3
)
properties = st.builds(
    BasicProperties,
    content_type=st.one_of(st.none(), st.just("application/json"), texts),
    content_encoding=st.one_of(st.none(), texts),
    headers=st.one_of(st.none(), headers),
    delivery_mode=st.one_of(st.none(), st.integers(0, 255)),
    priority=st.one_of(st.none(), st.integers(0, 255)),
    message_id=st.one_of(st.none(), texts),
    timestamp=st.one_of(st.none(), st.integers(0, 2**63)),
    type=st.one_of(st.none(), texts),
    app_id=st.one_of(st.none(), texts),
)
deliveries = st.builds(
    delivery,
    st.binary(max_size=300),
    properties,
    tag=st.integers(0, 2**63),
    key=texts,
    exchange=texts,
    redelivered=st.booleans(),
    consumer=st.sampled_from([OURS, OURS[:-1], "other", ""]),
    channel=st.sampled_from([1, 1, 1, 2]),
    largest=st.sampled_from([20, 100, 131072]),
)


runs = st.builds(lambda each, times: [each] * times, deliveries, st.integers(1, 3))
"""Alike, one after the other: there is an even shorter way for those."""


@given(st.lists(runs, max_size=4), st.lists(st.integers(1, 400), max_size=30))
def test_any_deliveries_in_any_pieces(stream: list[list[bytes]], pieces: list[int]) -> None:
    both(b"".join(chain(*stream)), pieces)


@pytest.mark.parametrize("key", ["user.made", "user.gone", "user.made.twice"])
@pytest.mark.parametrize("properties", [PROPERTIES, BasicProperties(), BasicProperties(content_type="text/plain")])
def test_what_differs_from_the_one_before_is_not_taken_for_its_like(key: str, properties: BasicProperties) -> None:
    for other in ({"exchange": "d"}, {"channel": 2}, {"consumer": "ctag1.0urs"}, {"tag": 2**63}, {}):
        stream = delivery(b"1", PROPERTIES) + delivery(b"23", properties, key=key, **other)  # type: ignore[arg-type]
        both(stream + delivery(b"", PROPERTIES, tag=3) + delivery(b"5", PROPERTIES, tag=4))


@given(st.lists(runs, min_size=1, max_size=2).map(lambda found: list(chain(*found))), st.data())
def test_whatever_is_broken_ends_as_it_ends_with_pika(stream: list[bytes], data: st.DataObject) -> None:
    # The last one: a broker that goes on after half a delivery breaks the protocol, and pika mixes the two.
    broken = bytearray(b"".join(stream))
    first = len(broken) - len(stream[-1])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(first, len(broken) - 1))] = data.draw(st.integers(0, 255))
    results = []
    for cuts in (True, False):
        reader = Reader(cuts)
        try:
            reader.feed(bytes(broken), [])
            error = None
        except Exception as raised:
            error = type(raised)
        results.append((reader.told, reader.others, error))
    if results[0][2] is None and results[1][2] is None:
        assert results[0] == results[1]
    else:
        # pika ends the connection with the first frame that it cannot read; what came before is the same.
        assert results[0][:2] == results[1][:2]
        assert results[0][2] == results[1][2]


@given(st.binary(max_size=200), st.booleans())
@example(b"\x01\x00\x01" + b"\xff" * 60, True)
def test_rubbish_is_never_cut_and_raises_only_what_pika_raises(rubbish: bytes, as_method: bool) -> None:
    cutter = Deliveries()
    told: list[Any] = []
    cutter.expect(1, OURS, lambda *args: told.append(args))
    stream = (b"\x01\x00\x01\x00\x00\x00\x40\x00\x3c\x00\x3c" if as_method else b"") + rubbish
    cut, _ = cutter.cut(stream)
    assert cut == 0
    assert told == []


def test_a_broken_frame_is_still_an_error_of_the_protocol() -> None:
    stream = bytearray(delivery(b"1"))
    stream[-1] = 0
    with pytest.raises(exceptions.InvalidFrameError):
        Reader(cuts=True).feed(bytes(stream), [])


@given(properties)
def test_what_is_called_plain_is_json_without_headers_of_ours(given: BasicProperties) -> None:
    encoded = b"".join(given.encode())
    is_json = given.content_type == "application/json"
    ours = any(str(name).startswith("domain-events-") for name in given.headers or {})
    assert is_plain_json(encoded) == (is_json and not ours)
    if is_plain_json(encoded):
        assert read_progress("a.b", decode_properties(encoded).headers) == Progress("a.b")


@pytest.mark.parametrize("name", ["domain-events-retries", "domain-events-routing-key", "domain-events-"])
def test_what_has_headers_of_ours_among_others_is_not_called_plain(name: str) -> None:
    headers = {"a": 1, name: 1, "traceparent": "00-1-2-01"}
    assert not is_plain_json(b"".join(BasicProperties(content_type="application/json", headers=headers).encode()))
    del headers[name]
    assert is_plain_json(b"".join(BasicProperties(content_type="application/json", headers=headers).encode()))


class Writing(Link):
    """Writes to a real socket, through pika's transport."""

    def __init__(self, sock: socket.socket) -> None:
        self._writers: list[Any] = []
        services: Any = self
        self._plain = self._transport = _AsyncPlaintextTransport(sock, services, services)

    def set_reader(self, fd: int, on_readable: Any) -> None: ...

    def set_writer(self, fd: int, on_writable: Any) -> None:
        self._writers.append(on_writable)

    def remove_writer(self, fd: int) -> None:
        self._writers.clear()

    def writable(self) -> None:
        for told in list(self._writers):
            told()

    @property
    def waits(self) -> bool:
        return bool(self._writers)


def test_what_the_socket_does_not_take_at_once_goes_out_later_in_its_order() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        link = Writing(ours)
        pieces = [bytes([n]) * size for n, size in enumerate([10, 2_000_000, 5, 300_000, 1])]
        link._adapter_emit_data(pieces[0])
        assert not link.waits  # nobody was asked whether it may be written
        for piece in pieces[1:]:
            link._adapter_emit_data(piece)
        assert link.waits
        arrived = b""
        while len(arrived) < sum(map(len, pieces)):
            arrived += theirs.recv(1_000_000)
            link.writable()
        assert arrived == b"".join(pieces)
        assert not link.waits


def test_a_line_that_is_cut_is_found_out_by_pika_in_its_time() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        link = Writing(ours)
        theirs.close()
        link._adapter_emit_data(b"into the void")  # raises nothing: somebody may be in the middle of something
        assert link.waits
