"""Whatever stands in a header frame: it is read, and what we publish again of it is small, readable and our own word.

`HOSTILE_EXAMPLES=200000 pytest tests/unit/test_hostile_headers.py` looks for longer, with other examples each time.
"""

from __future__ import annotations

import decimal
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from domain_events.transport import wire
from domain_events.transport.tolerance import HEADERS_LEFT_OUT, TolerantConnection, read_properties
from domain_events.transport.wire import Failure, Progress, dead_letter_properties, read_progress, retry_properties
from tests.fuzzing import fuzz
from tests.tables import FIXED, entries, long, number, properties, short

FRAME_MAX = 131_072
"""RabbitMQ's default: a header frame is not larger."""


class Link(TolerantConnection):
    """The reader of frames, without a connection around it."""

    def __init__(self, received: bytes) -> None:
        self._frame_buffer = received

    def read(self) -> tuple[int, Any]:
        return self._read_frame()


def header_frame(encoded: bytes) -> bytes:
    payload = struct.pack(">HHQ", BasicProperties.INDEX, 0, 5) + encoded
    return struct.pack(">BHI", spec.FRAME_HEADER, 1, len(payload)) + payload + bytes([spec.FRAME_END])


def arrived(encoded: bytes) -> BasicProperties:
    """As a consumer gets them; what follows the frame is not touched."""
    received = header_frame(encoded)
    consumed, value = Link(received + b"next").read()
    assert consumed == len(received)
    assert isinstance(value, frame.Header)
    assert value.body_size == 5
    found: BasicProperties = value.properties
    return found


def copies(original: BasicProperties, routing_key: str = "a.b") -> list[BasicProperties]:
    """A retry and a dead letter of it, as they arrive in turn, with what must be true of each."""
    progress = read_progress(routing_key, original.headers)
    assert progress.routing_key
    assert 0 <= progress.retries <= 2**31
    failure = Failure(reason="why", error_type="E", error_message="m" * 3000, traceback="t" * 20_000)
    made = [
        retry_properties(original, progress, 1.0),
        dead_letter_properties(original, progress, failure, receiver="r", now=2.0),
    ]
    found = []
    for copy in made:
        encoded = b"".join(copy.encode())
        assert len(encoded) < 2**16
        copied = arrived(encoded)
        # Nothing is left out in reading it again.
        assert copied.headers.keys() == copy.headers.keys()
        assert read_progress("other", copied.headers).routing_key == progress.routing_key
        assert read_progress("other", copied.headers).retries >= min(progress.retries, 2**31)
        found.append(copied)
    return found


# Tables of every kind, nested, cut and damaged

NAMES = st.sampled_from(
    [
        "domain-events-retries",
        "domain-events-routing-key",
        "domain-events-first-failed-at",
        "domain-events-reason",
        "domain-events-headers-left-out",
        "x-death",
        "CC",
        "BCC",
        "",
        "n",
    ]
).map(str.encode) | st.binary(max_size=8)
FLAT = st.one_of(
    *(
        st.binary(min_size=size, max_size=size).map(lambda data, kind=kind: kind.encode() + data)  # type: ignore[misc]
        for kind, size in FIXED.items()
    ),
    st.tuples(st.sampled_from("Sx"), st.binary(max_size=12)).map(lambda pair: long(pair[1], pair[0])),
)
ODD = st.binary(max_size=9) | st.tuples(st.sampled_from(b"SxAF"), st.integers(0, 2**32 - 1), st.binary(max_size=6)).map(
    lambda parts: bytes([parts[0]]) + struct.pack(">I", parts[1]) + parts[2]
)


def table_of(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.tuples(NAMES, values), max_size=5).map(
        lambda pairs: b"".join(short(name) + value for name, value in pairs)
    )


def nested(leaves: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4).map(lambda items: long(b"".join(items), "A"))
            | table_of(inner).map(lambda table: long(table, "F"))
        ),
        max_leaves=8,
    )


OTHERS = st.builds(
    BasicProperties,
    content_type=st.none() | st.text(max_size=10),
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    message_id=st.none() | st.binary(max_size=255) | st.text(max_size=60),
    timestamp=st.none() | st.integers(0, 2**64 - 1),
    expiration=st.none() | st.text(max_size=5),
    user_id=st.none() | st.text(max_size=5),
)


@fuzz
@given(table_of(nested(FLAT)), OTHERS)
def test_every_well_formed_table_is_read_and_copied(table: bytes, rest: BasicProperties) -> None:
    original = arrived(properties(table, rest))
    assert original.message_id == arrived(properties(b"", rest)).message_id
    for copy in copies(original):
        assert (copy.message_id, copy.timestamp, copy.delivery_mode) == (original.message_id, original.timestamp, 2)
        assert (copy.expiration, copy.user_id) == (None, None)
        assert not {"CC", "BCC", "x-death"} & copy.headers.keys()
        copies(copy)


@fuzz
@given(table_of(nested(FLAT | ODD)) | st.binary(max_size=40), OTHERS)
def test_no_table_breaks_the_reader_or_a_copy(table: bytes, rest: BasicProperties) -> None:
    copies(arrived(properties(table, rest)))


@fuzz
@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader_or_a_copy(encoded: bytes) -> None:
    copies(arrived(encoded))
    read_properties(encoded)


@fuzz
@given(table_of(nested(FLAT)), OTHERS, st.data())
def test_no_damage_breaks_the_reader_or_a_copy(table: bytes, rest: BasicProperties, data: st.DataObject) -> None:
    encoded = bytearray(properties(table, rest))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded)))
        encoded[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    copies(arrived(bytes(encoded)))


ABSURD = {
    "a string beyond the table": entries(n=b"S" + struct.pack(">I", 2**32 - 1) + b"ab"),
    "a table beyond the table": entries(n=b"F" + struct.pack(">I", 1000) + b"\1nV"),
    "an array beyond the table": entries(n=b"A" + struct.pack(">I", 1000) + b"V"),
    "a name beyond the table": b"\xffn",
    "a name and no value": b"\1n",
    "a kind and no value": b"\1nl",
    "an unknown kind": b"\1n?",
    "a length that is cut": b"\1nS\0\0",
    "decimals": entries(n=b"D\xff\x7f\xff\xff\xff"),
    "a signalling NaN": entries(n=b"d" + bytes.fromhex("7ff4000000000000")),
}


@pytest.mark.parametrize("table", ABSURD.values(), ids=ABSURD)
def test_what_is_before_an_absurd_value_is_kept_with_all_other_properties(table: bytes) -> None:
    rest = BasicProperties(content_type="c", message_id="m", app_id="a")
    original = arrived(properties(entries(before=long("kept")) + table, rest))
    assert original.headers["before"] == "kept"
    # pika itself takes a cut string for a whole one, and is then lost in the properties that follow
    if HEADERS_LEFT_OUT in original.headers:
        assert (original.message_id, original.app_id) == ("m", "a")
    copies(original)


def test_the_length_of_a_table_may_be_a_lie() -> None:
    for size in (5, 2**31, 2**32 - 1):
        original = arrived(struct.pack(">HI", BasicProperties.FLAG_HEADERS, size) + entries(n=number(1, "I")))
        copies(original)


# As many as fit into a frame: what we do with them grows with their number, not with its square

MANY = {
    "nothings": lambda n: short(f"{n:x}") + b"V",
    "numbers that pika cannot write": lambda n: short(f"{n:x}") + b"d" + struct.pack(">d", 1e308),
    "times that pika cannot read": lambda n: short(f"{n:x}") + b"T" + b"\xff" * 8,
    "short strings": lambda n: short(f"{n:x}") + long("x" * 20),
    "tables": lambda n: short(f"{n:x}") + long(b"\1nV", "F"),
    "our own names": lambda n: short(f"domain-events-{n:x}") + b"V",
}


@pytest.mark.parametrize("kind", MANY)
def test_tens_of_thousands_of_headers_are_read_and_copied(kind: str) -> None:
    """The quadratic way took minutes."""
    pieces: list[bytes] = []
    size = n = 0
    while size < FRAME_MAX - 1000:
        pieces.append(MANY[kind](n))
        size += len(pieces[-1])
        n += 1
    table = b"".join(pieces)
    original = arrived(properties(table, BasicProperties(message_id="m")))
    for copy in copies(original):
        assert copy.headers[HEADERS_LEFT_OUT] > 0
        assert copy.message_id == "m"


def test_headers_are_measured_once_each_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    measure = wire._size

    def counting(measured: BasicProperties) -> int:
        nonlocal calls
        calls += 1
        return measure(measured)

    monkeypatch.setattr(wire, "_size", counting)
    original = BasicProperties(headers={f"{n:04x}": "x" * 100 for n in range(1000)})
    copy = retry_properties(original, Progress("a.b"), 1.0)
    assert copy.headers is not None
    assert copy.headers[HEADERS_LEFT_OUT] == 1000 - (len(copy.headers) - 4)
    assert calls <= 2 * 1000 + 10


def test_the_largest_headers_are_left_out_and_counted_on_top_of_those_that_were_before() -> None:
    headers = {"small": "s", "large": "x" * 50_000, "larger": "x" * 60_000, HEADERS_LEFT_OUT: 3}
    copy = retry_properties(BasicProperties(headers=headers), Progress("a.b"), 1.0)
    assert copy.headers is not None
    assert copy.headers.keys() == {
        "small", "large", HEADERS_LEFT_OUT, "domain-events-routing-key", "domain-events-retries",
        "domain-events-first-failed-at",
    }  # fmt: skip
    assert copy.headers[HEADERS_LEFT_OUT] == 4


# Forged headers of ours

FORGED = {
    "domain-events-reason": "forged",
    "domain-events-error-type": "forged",
    "domain-events-error-message": "forged",
    "domain-events-traceback": "forged",
    "domain-events-receiver": "forged",
    "domain-events-host": "forged",
    "domain-events-pid": 1,
    "domain-events-dead-at": "1.0",
    "domain-events-code-version": "forged",
}


def test_nobody_else_writes_a_dead_letters_report() -> None:
    original = BasicProperties(headers={**FORGED, "other": "kept"})
    progress = read_progress("a.b", original.headers)
    dead = dead_letter_properties(original, progress, Failure(reason="malformed: x"), receiver="r", now=2.0).headers
    assert dead is not None
    assert "forged" not in dead.values()
    assert (dead["domain-events-reason"], dead["other"]) == ("malformed: x", "kept")
    for name in ("error-type", "error-message", "traceback", "code-version"):
        assert f"domain-events-{name}" not in dead


def test_a_retry_carries_no_report_of_a_dead_letter() -> None:
    retried = retry_properties(BasicProperties(headers=FORGED), Progress("a.b"), 1.0).headers
    assert retried is not None
    assert not FORGED.keys() & retried.keys()


@pytest.mark.parametrize(
    "forged", [-1, True, 1.5, "3", 2**63 - 1, [3], {"a": 1}, None, b"3", decimal.Decimal("1e9")], ids=repr
)
def test_retries_end_whatever_was_forged(forged: Any) -> None:
    original = BasicProperties(headers={"domain-events-retries": forged})
    progress = read_progress("a.b", original.headers)
    for n in range(5):
        following = read_progress("q", retry_properties(original, progress, 1.0).headers)
        assert following.retries == min(progress.retries + 1, 2**31)
        original, progress = retry_properties(original, progress, 1.0), following
        assert progress.retries > n or progress.retries == 2**31


@pytest.mark.parametrize(
    "forged", ["nan", "inf", "-inf", "1e300", "-1", "0", "253402300800", "1_0e99", "x" * 100_000, 5]
)
def test_a_time_of_the_first_failure_that_is_in_no_calendar_is_not_believed(forged: Any) -> None:
    assert read_progress("a.b", {"domain-events-first-failed-at": forged}).first_failed_at is None


@pytest.mark.parametrize("forged", ["", "x" * 4096, b"\xff", b"a.b", "\\x" * 2000, 7, ["a"]])
def test_an_original_routing_key_that_cannot_be_one_is_not_believed(forged: Any) -> None:
    assert read_progress("queue", {"domain-events-routing-key": forged}).routing_key == "queue"


def test_a_routing_key_that_is_no_utf_8_survives_retries_as_escapes() -> None:
    key = (b"\xff" * 255).decode("utf-8", "backslashreplace")
    retried = retry_properties(BasicProperties(), Progress(key), 1.0)
    again = retry_properties(retried, read_progress("queue", retried.headers), 2.0)
    assert read_progress("queue", again.headers) == Progress(key, 2, 1.0)


# What handlers raise

ESCAPES = "\x1b[2J\x9b1m\0\r\x7f\u2028\u202e\ud800"


def test_a_dead_letters_texts_move_no_cursor_and_keep_their_lines() -> None:
    failure = Failure(
        reason="why\n" + ESCAPES, error_type="E\n" * 300, error_message="a\n\tb" + ESCAPES, traceback=ESCAPES
    )
    dead = dead_letter_properties(BasicProperties(), Progress("a.b"), failure, receiver="r", now=1.0).headers
    assert dead is not None
    for name, value in dead.items():
        text = str(value)
        assert text.replace("\n", "").replace("\t", "").isprintable(), name
        assert "\n" not in text or name in ("domain-events-error-message", "domain-events-traceback")
    assert dead["domain-events-error-message"].startswith("a\n\tb\\x1b[2J\\x9b1m\\x00\\r")
    assert len(dead["domain-events-error-type"]) <= 200


@pytest.mark.parametrize("size", [10**4, 10**6])
def test_texts_of_a_dead_letter_are_bounded(size: int) -> None:
    failure = Failure(reason="\x1b" * size, error_type="E" * size, error_message="\0" * size, traceback="\ud800" * size)
    dead = dead_letter_properties(BasicProperties(), Progress("a.b"), failure, receiver="r", now=1.0)
    assert dead.headers is not None
    assert len(dead.headers["domain-events-reason"]) <= 2000
    assert len(dead.headers["domain-events-error-message"]) <= 2000
    assert len(dead.headers["domain-events-traceback"]) <= 16_000
    assert len(b"".join(dead.encode())) < 2**16


# The broker's words


@pytest.mark.parametrize("method", [spec.Connection.Close, spec.Channel.Close, spec.Basic.Return])
def test_a_reason_that_the_broker_cut_within_a_character_is_text_all_the_same(method: Any) -> None:
    text = ("queue '" + "ü" * 200).encode()[:252] + b"..."
    said = method(312, "x", "", "key") if method is spec.Basic.Return else method(406, "x", 0, 0)
    received = frame.Method(1, said).marshal().replace(short("x"), short(text), 1)
    received = received[:3] + struct.pack(">I", len(received) - 8) + received[7:]
    _, value = Link(received).read()
    assert isinstance(value.method.reply_text, str)
    assert value.method.reply_text.endswith("ü\ufffd...")
