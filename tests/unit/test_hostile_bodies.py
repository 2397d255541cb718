"""Whatever stands in a body: an event, or a MalformedEvent whose reason is a short line without a word of the payload.

`HOSTILE_EXAMPLES=200000 pytest tests/unit/test_hostile_bodies.py` looks for longer, with other examples each time.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from domain_events import DomainEvent, MalformedEvent
from domain_events.errors import UnsendableData
from domain_events.nesting import DEEPEST, nests_too_deeply
from domain_events.reading import MOST_DIGITS, read_object
from domain_events.transport.wire import CLOUDEVENTS, read_event
from tests.deliveries import received
from tests.fuzzing import fuzz

SECRET = "hunter2"


def outcome(body: bytes | str, **properties: Any) -> DomainEvent | str:
    """The event, or the reason why there is none, which must be fit for a log."""
    try:
        event = read_event(received(BasicProperties(**properties), body))  # type: ignore[arg-type]
    except MalformedEvent as malformed:
        reason = str(malformed)
        assert reason.isprintable()
        assert 0 < len(reason) <= 200
        return reason
    assert isinstance(event.routing_key, str)
    assert event.routing_key.isprintable()
    assert 1 <= len(event.routing_key.encode()) <= 255
    assert 1 <= len(event.uuid_string.encode()) <= 255
    assert isinstance(event.timestamp, float)
    assert event.timestamp - event.timestamp == 0  # neither NaN nor infinite
    assert event.domain_object_id is None or isinstance(event.domain_object_id, str)
    event.encode()  # what was read can be sent on
    repr(event)
    return event


def whole(data: str, **more: str) -> bytes:
    """A body whose data, and what else there is, is this JSON."""
    others = "".join(f',"{name}":{text}' for name, text in more.items())
    return f'{{"routing_key":"a.b","data":{data}{others}}}'.encode("utf-8", "surrogatepass")


BOMBS: dict[str, tuple[bytes, str]] = {
    "arrays": (whole("[" * 10_000_000), "nested too deeply"),
    "objects": (whole('{"a":' * 2_000_000), "nested too deeply"),
    "arrays that end": (whole("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "one level too many": (whole("[" * DEEPEST + "]" * DEEPEST), "nested too deeply"),
    "depth outside of data": (whole("1", x="[" * 1000 + "]" * 1000), "nested too deeply"),
    "digits": (whole("9" * 100_000), "too many digits"),
    "1e999": (whole("1e999"), "too large"),
    "-1e999": (whole("[-1e999]"), "too large"),
    "digits of a timestamp": (whole("1", timestamp="9" * 400), "timestamp is too large"),
    "digits of an object id": (whole("1", domain_object_id="9" * 5000), "too many digits"),
    "NaN": (whole("NaN"), "NaN"),
    "gzip": (gzip.compress(b"[" * 50_000_000), "not UTF-8"),
    "UTF-16": (whole("1").decode().encode("utf-16"), "not UTF-8"),
    "UTF-32": (whole("1").decode().encode("utf-32"), "not (UTF-8|JSON)"),
    "UTF-16 without a mark": (whole("1").decode().encode("utf-16-le"), "not JSON"),
    "NUL": (b"\0" * 1000, "not JSON"),
    "NUL in a string": (whole('"\0"'), "not JSON"),
    "overlong UTF-8": (whole('"\0"').replace(b"\0", b"\xc0\xaf"), "not UTF-8"),
    "surrogates as UTF-8": (whole('"\ud800"'), "not UTF-8"),
    "two documents": (whole("1") + whole("2"), "not JSON"),
    "surrogate in the id": (whole("1", uuid_string='"\\ud800"'), "lone surrogate"),
    "surrogate in the key": (b'{"routing_key":"\\ud800","data":1}', "control character"),
    "line end in the key": (b'{"routing_key":"a\\nb","data":1}', "control character"),
    "long key": (b'{"routing_key":"' + b"x" * 1_000_000 + b'","data":1}', "longer than 255"),
    "long id": (whole("1", uuid_string=f'"{"x" * 1_000_000}"'), "1000000 bytes"),
    "object as an id": (whole("1", uuid_string="{}"), "not a string"),
    "nothing": (b"", "not JSON"),
    "blank": (b" " * 1_000_000, "not JSON"),
    "comma": (whole("[1,]"), "not JSON"),
    "unfinished escape": (whole('"\\'), "not JSON"),
    "unfinished string": (b'{"routing_key":"' + b'\\"[' * 300_000, "nested too deeply|not JSON"),
}


@pytest.mark.parametrize(("body", "reason"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_malformed_with_a_reason(body: bytes, reason: str) -> None:
    said = outcome(body)
    assert isinstance(said, str)
    assert re.search(reason, said)


GOOD: dict[str, bytes] = {
    "as deep as may be": whole("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)),
    "brackets in a string": whole(json.dumps("[{" * 1000)),
    "brackets behind escapes": whole(json.dumps('\\"[{' * 1000)),
    "many arrays side by side": whole("[" + "[]," * 10_000 + "0]"),
    "tiny": whole("1e-99999999"),
    "many digits of a fraction": whole("1." + "1" * 100_000),
    "the longest integer": whole("9" * MOST_DIGITS),
    "the same key": whole("{" + '"a":1,' * 10_000 + '"a":2}'),
    "many keys": whole(json.dumps({f"key {n}": n for n in range(50_000)})),
    "surrogate in data": whole('"\\ud800"'),
    "NUL as an escape": whole('"\\u0000"'),
    "a byte order mark": b"\xef\xbb\xbf" + whole("1"),
    "beyond the calendar": whole("1", timestamp="1e300"),
    "before the calendar": whole("1", timestamp="-1e300"),
    "forged fields": whole("1", retries="-1", extra='"x"'),
    "line ends in the id": whole("1", uuid_string='"a\\n\\u001b[2J"'),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_what_is_only_odd_is_an_event(body: bytes) -> None:
    assert isinstance(outcome(body), DomainEvent)


@pytest.mark.parametrize(
    "place", [SECRET, f'"{SECRET}"', f'{{"routing_key":"{SECRET}\\n"}}', f"[{SECRET}", f'{{"a":{SECRET}']
)
def test_a_reason_does_not_repeat_the_payload(place: str) -> None:
    said = outcome(place.encode())
    assert isinstance(said, str)
    assert SECRET not in said


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd"])
def test_a_compressed_body_is_not_unpacked_and_its_reason_says_so(encoding: str) -> None:
    said = outcome(gzip.compress(whole("1")), content_encoding=encoding)
    assert said == f"the body is compressed ({encoding.lower()}); only plain JSON can be read"
    assert isinstance(outcome(whole("1"), content_encoding=encoding), DomainEvent)  # it is not


def test_a_foreign_content_encoding_is_not_repeated() -> None:
    said = outcome(b"\xff", content_encoding="gzip\n" + SECRET)
    assert isinstance(said, str)
    assert SECRET not in said


def test_what_nests_too_deeply_for_a_receiver_is_not_sent() -> None:
    data: Any = 1
    for _ in range(DEEPEST - 1):
        data = [data]
    body = DomainEvent("a.b", data).encode()
    assert outcome(body) == DomainEvent.from_json(body)
    with pytest.raises(UnsendableData, match=f"more than {DEEPEST} levels"):
        DomainEvent("a.b", [data]).encode()


DEEP = """
import sys, threading
from domain_events import DomainEvent, MalformedEvent
sys.setrecursionlimit(10**6)
threading.stack_size(128 * 1024)
def read():
    for unit in (b'[', b'{"a":', b'[{"":'):
        try:
            DomainEvent.from_json(b'{"routing_key":"a","data":' + unit * 1_000_000)
        except MalformedEvent as malformed:
            print(malformed)
    deep = DomainEvent.from_json(b'{"routing_key":"a","data":' + b'[' * 499 + b']' * 499 + b'}')
    print(deep.routing_key)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


def test_no_depth_runs_over_the_end_of_a_small_stack_when_pythons_own_limit_is_lifted() -> None:
    done = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the body is nested too deeply, more than 500 levels"] * 3 + ["a"]


def test_digits_are_counted_also_where_pythons_own_limit_is_lifted() -> None:
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(0)
        assert outcome(whole("9" * 5_000_000)) == "the body holds an integer of too many digits"
        event = outcome(whole("9" * 100))
        assert isinstance(event, DomainEvent)
        assert event.data == int("9" * 100)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_body_for_which_there_is_no_memory_is_malformed() -> None:
    class Large(bytes):
        def count(self, *_: Any) -> int:
            raise MemoryError

    with pytest.raises(MalformedEvent, match="more memory than there is"):
        read_object(Large(whole("1" * DEEPEST)))


# Depth, against the scanner itself


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, (dict, list)) + max((depth_of(each) for each in inner), default=0)


ODD_TEXT = st.text(alphabet='[]{}"\\,:ü\n', max_size=12)


@fuzz
@given(st.recursive(ODD_TEXT | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ODD_TEXT, inner)))
def test_the_depth_is_that_of_the_decoded_value(value: Any) -> None:
    depth = depth_of(value)
    wrapped = value
    for _ in range(DEEPEST - depth):
        wrapped = [wrapped]
    for ascii_only in (True, False):
        assert not nests_too_deeply(json.dumps(wrapped, ensure_ascii=ascii_only).encode())
        assert nests_too_deeply(json.dumps([wrapped], ensure_ascii=ascii_only).encode())


# Anything at all

KEYS = ["routing_key", "data", "domain_object_id", "uuid_string", "timestamp"]
CLOUD_KEYS = ["specversion", "type", "id", "subject", "time", "data", "data_base64", "source"]
TIMES = st.sampled_from(
    ["9999-12-31T24:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:60Z", "2020-W01-1T00:00Z", "2020-01-01", ""]
)
SCALARS = (
    st.sampled_from(
        ["1e999", "-0", "1E400", "9" * 5000, "1e-99999999", "NaN", "-Infinity", "true", "null", '"\\ud800"']
    )
    | st.text(max_size=30).map(json.dumps)
    | TIMES.map(json.dumps)
    | st.floats().map(json.dumps)
    | st.integers().map(json.dumps)
)


def objects(keys: list[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(
        st.sampled_from(keys) | st.text(max_size=8), SCALARS | st.just('"1.0"') | st.just('"a.b"') | st.just("{}")
    )
    return st.lists(pair, max_size=9).map(lambda pairs: "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in pairs) + "}")


@fuzz
@given(objects(KEYS) | objects(CLOUD_KEYS), st.booleans())
def test_no_object_raises_anything_but_malformed_event(text: str, cloud: bool) -> None:
    outcome(text.encode("utf-8", "surrogatepass"), content_type=CLOUDEVENTS if cloud else None)
    with contextlib.suppress(MalformedEvent):
        DomainEvent.from_json(text)


@fuzz
@given(objects(KEYS), st.data())
def test_no_damage_to_a_body_raises_anything_but_malformed_event(text: str, data: st.DataObject) -> None:
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    outcome(bytes(body))


SHORT = st.text(max_size=20) | st.binary(max_size=255)


@fuzz
@given(
    st.binary(max_size=60) | objects(KEYS).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": SHORT,
            "content_encoding": SHORT,
            "message_id": SHORT,
            "timestamp": st.integers(0, 2**64 - 1),
        },
    ),
)
def test_no_properties_raise_anything_but_malformed_event(body: bytes, properties: dict[str, Any]) -> None:
    outcome(body, **properties)


def test_threads_read_at_once() -> None:
    """The two decoders hold no state."""
    bodies = [whole(json.dumps({"n": n, "text": "x" * n})) for n in range(200)]
    wrong: list[int] = []

    def read() -> None:
        for n, body in enumerate(bodies):
            event = outcome(body)
            if not isinstance(event, DomainEvent) or event.data["n"] != n:
                wrong.append(n)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
