"""What a domain event is, how it is written, and what is read of what others write."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import json
import math
import pickle
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import domain_event_broker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.errors import InvalidName, MalformedEvent, UnsendableData
from domain_events.events import DomainEvent

KEYS = ["routing_key", "data", "domain_object_id", "uuid_string", "timestamp"]
UUID_1 = uuid.UUID("12345678-1234-4234-8234-123456789abc")

# Without lone surrogates and with every float that JSON knows; floats and ints stay what they are.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
any_json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*KEYS, "specversion", "type", "id", "time", "subject"]) | st.text(), inner)
    ),
    max_leaves=20,
).map(json.dumps)


def body(**changes: Any) -> bytes:
    """A good body, with some keys changed, or left out where the change is `...`."""
    content = {
        "routing_key": "user.disabled",
        "data": {"user_id": 1},
        "domain_object_id": "7",
        "uuid_string": "abc",
        "timestamp": 1.5,
    } | changes
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


# Making one


def test_id_and_timestamp_are_made_when_not_given():
    first, second = DomainEvent("user.disabled", {}), DomainEvent("user.disabled", {})
    assert uuid.UUID(first.uuid_string).version == 4
    assert first.uuid_string != second.uuid_string
    assert abs(first.timestamp - datetime.now(UTC).timestamp()) < 60
    assert (first.domain_object_id, first.retries, first.extra) == (None, 0, {})


def test_all_fields_can_be_given_by_position():
    event = DomainEvent("user.disabled", {"user_id": 1}, "7", "abc", 1.5, 2)
    assert event == DomainEvent(
        routing_key="user.disabled",
        data={"user_id": 1},
        domain_object_id="7",
        uuid_string="abc",
        timestamp=1.5,
        retries=2,
    )
    assert event.retries == 2


def test_an_event_cannot_be_changed():
    event = DomainEvent("user.disabled", {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.routing_key = "user.enabled"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        event.anything_else = 1  # type: ignore[attr-defined]


def test_events_are_equal_by_content_and_not_by_retries_or_extra():
    event = DomainEvent.from_json(body(), retries=3)
    assert event == DomainEvent.from_json(body(unknown=1))
    assert hash(event) == hash(DomainEvent.from_json(body(unknown=1)))
    assert event != DomainEvent.from_json(body(data=None))
    assert event != DomainEvent.from_json(body(timestamp=2))
    assert event != DomainEvent.from_json(body(uuid_string="abd"))
    assert event != DomainEvent.from_json(body(domain_object_id=None))
    assert event != DomainEvent.from_json(body(routing_key="user.enabled"))
    assert event != "user.disabled"


def test_an_event_with_unhashable_data_can_be_in_a_set():
    event = DomainEvent("user.disabled", {"roles": ["admin"]})
    assert {event, copy.copy(event)} == {event}


def test_the_repr_does_not_show_the_data():
    shown = repr(DomainEvent("user.disabled", {"password": "hunter2"}, uuid_string="abc", retries=1))
    assert shown == "DomainEvent('user.disabled', uuid_string='abc', retries=1)"


def test_an_event_survives_pickling_copying_and_replacing():
    event = DomainEvent.from_json(body(unknown=1), retries=1)
    for twin in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        assert (twin, twin.retries, twin.extra) == (event, 1, {"unknown": 1})
    assert dataclasses.replace(event, retries=2).retries == 2


@pytest.mark.parametrize("key", ["", "user.*", "#", "a..b", "x" * 256, "a\nb", "\ud800", None, 7])
def test_a_bad_routing_key_is_refused(key: Any):
    with pytest.raises(InvalidName):
        DomainEvent(key, {})


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("uuid_string", "", ValueError),
        ("uuid_string", "ü" * 128, ValueError),
        ("uuid_string", "\ud800", ValueError),
        ("uuid_string", UUID_1, TypeError),
        ("timestamp", math.nan, ValueError),
        ("timestamp", math.inf, ValueError),
        ("timestamp", 10**400, ValueError),
        ("timestamp", datetime(2024, 1, 1), ValueError),
        ("timestamp", "2024-01-01", TypeError),
        ("timestamp", True, TypeError),
        ("domain_object_id", 1.5, TypeError),
        ("domain_object_id", True, TypeError),
        ("domain_object_id", ["7"], TypeError),
        ("retries", -1, ValueError),
        ("retries", True, TypeError),
        ("retries", 1.0, TypeError),
    ],
)
def test_any_other_bad_field_is_named(field: str, value: Any, error: type[Exception]):
    with pytest.raises(error, match=field):
        DomainEvent("user.disabled", {}, **{field: value})


def test_the_longest_id_is_accepted():
    assert len(DomainEvent("user.disabled", {}, uuid_string="x" * 255).uuid_string) == 255


@pytest.mark.parametrize(("given_id", "kept"), [(7, "7"), (UUID_1, str(UUID_1)), ("", ""), ("x", "x")])
def test_an_object_id_becomes_a_string(given_id: Any, kept: str):
    assert DomainEvent("user.disabled", {}, given_id).domain_object_id == kept


def test_names_from_a_string_enum_become_plain_strings():
    class Name(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is not its value
        DISABLED = "user.disabled"

    event = DomainEvent(Name.DISABLED, {}, domain_object_id=Name.DISABLED, uuid_string=Name.DISABLED)
    for value in (event.routing_key, event.domain_object_id, event.uuid_string):
        assert (type(value), value) == (str, "user.disabled")


def test_an_aware_datetime_becomes_unix_seconds():
    moment = datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert DomainEvent("user.disabled", {}, timestamp=moment).timestamp == 1704067200.0
    assert isinstance(DomainEvent("user.disabled", {}, timestamp=5).timestamp, float)


# Writing


def test_the_body_has_exactly_five_keys_in_order_and_no_spaces():
    event = DomainEvent("user.disabled", {"name": "Zoë"}, 7, "abc", 1.5, 3)
    text = (
        '{"routing_key":"user.disabled","data":{"name":"Zoë"},"domain_object_id":"7",'
        '"uuid_string":"abc","timestamp":1.5}'
    )
    assert event.to_json() == text
    assert event.encode() == text.encode()


def test_extra_and_retries_are_not_written():
    written = json.loads(DomainEvent.from_json(body(unknown=1), retries=3).to_json())
    assert list(written) == KEYS


class Colour(enum.Enum):
    RED = "red"
    BOX = (1, UUID_1)


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Address:
    street: str
    since: date


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    name: str
    address: Address
    colour: Colour = Colour.RED


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "2024-01-02T03:04:05+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(3, 4, 5), "03:04:05"),
        (UUID_1, str(UUID_1)),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Colour.BOX, [1, str(UUID_1)]),
        (Level.HIGH, 3),
        (Word.YES, "yes"),
        (Address("Main St", date(2024, 1, 2)), {"street": "Main St", "since": "2024-01-02"}),
        (
            User("Zoë", Address("Main St", date(2024, 1, 2))),
            {"name": "Zoë", "address": {"street": "Main St", "since": "2024-01-02"}, "colour": "red"},
        ),
        ((1, [Decimal(2), {"a": UUID_1}]), [1, ["2", {"a": str(UUID_1)}]]),
        ({1: "a", 1.5: "b", None: "c", Word.YES: "d"}, {"1": "a", "1.5": "b", "null": "c", "yes": "d"}),
        ({True: "a"}, {"true": "a"}),
        (None, None),
        ("", ""),
    ],
)
def test_data_may_hold_more_than_json_knows(value: Any, written: Any):
    for wrapped, expected in ((value, written), ({"in": [value]}, {"in": [written]})):
        event = DomainEvent("user.disabled", wrapped)
        assert json.loads(event.to_json())["data"] == expected
        assert json.loads(event.encode())["data"] == expected


def circular_list() -> list[Any]:
    loop: list[Any] = []
    loop.append({"again": loop})
    return loop


@dataclasses.dataclass
class Node:
    next: Any = None


@dataclasses.dataclass(slots=True)
class Unset:
    name: str = dataclasses.field(init=False)


def circular_dataclass() -> Node:
    node = Node()
    node.next = [node]
    return node


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x", "data: bytes cannot be written as JSON"),
        ({"user": {"avatar": b"x"}}, "data.user.avatar: bytes cannot be written as JSON"),
        ({"users": [{}, {"roles": {"a"}}]}, "data.users[1].roles: set cannot be written as JSON"),
        ({"first name": {7: object()}}, "data['first name'][7]: object cannot be written as JSON"),
        ({"price": math.nan}, "data.price: nan cannot be written as JSON"),
        ([math.inf], "data[0]: inf cannot be written as JSON"),
        ({"a": {math.inf: 1}}, "data.a: inf cannot be written as JSON"),
        ({"a": {(1, 2): 1}}, "data.a: a key of type tuple cannot be written as JSON"),
        ({UUID_1: 1}, "data: a key of type uuid.UUID cannot be written as JSON"),
        ({"n": [10**5000]}, "data.n[0]: an integer of so many digits cannot be written as JSON"),
        ({"k": {10**5000: 1}}, "data.k: an integer of so many digits cannot be written as JSON"),
        ({"when": timedelta(1)}, "data.when: datetime.timedelta cannot be written as JSON"),
        ({"kind": User}, "data.kind: type cannot be written as JSON"),
        ([Node(b"x")], "data[0].next: bytes cannot be written as JSON"),
        (circular_list(), "data[0].again: it contains itself, which JSON cannot"),
        (circular_dataclass(), "data.next[0]: it contains itself, which JSON cannot"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(data: Any, message: str):
    event = DomainEvent("user.disabled", data)
    for write in (event.to_json, event.encode):
        with pytest.raises(UnsendableData) as caught:
            write()
        assert str(caught.value) == message
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)


def test_a_dataclass_with_an_unset_field_is_refused():
    with pytest.raises(UnsendableData, match=r"data\.who: .*Unset has an unset field"):
        DomainEvent("user.disabled", {"who": Unset()}).encode()


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}, Node])
def test_data_that_is_nested_too_deeply_is_refused(wrap: Any):
    data: Any = 1
    for _ in range(100_000):
        data = wrap(data)
    with pytest.raises(UnsendableData, match="nested too deeply"):
        DomainEvent("user.disabled", data).encode()
    # Taken apart by hand: freeing a long chain of objects recursively is not what is tested here.
    while not isinstance(data, int):
        data = data.next if isinstance(data, Node) else (data[0] if isinstance(data, list) else data["a"])


def test_the_path_to_something_deep_is_shortened():
    data: Any = b"x"
    for _ in range(500):
        data = {"level": data}
    with pytest.raises(UnsendableData) as caught:
        DomainEvent("user.disabled", data).encode()
    assert str(caught.value).startswith("data.level.level")
    assert len(str(caught.value)) < 300


def test_the_same_object_twice_is_no_circle():
    shared = {"a": 1}
    event = DomainEvent("user.disabled", [shared, {"b": shared}])
    assert json.loads(event.encode())["data"] == [{"a": 1}, {"b": {"a": 1}}]
    with pytest.raises(UnsendableData, match=r"data\[2\]: bytes"):
        DomainEvent("user.disabled", [shared, shared, b""]).encode()


def test_a_lone_surrogate_travels_as_an_escape():
    event = DomainEvent("user.disabled", {"näme": "\ud800"})
    assert event.encode().isascii()
    assert event.to_json() == event.encode().decode()
    assert DomainEvent.from_json(event.encode()) == event


# Reading


@given(
    json_values,
    st.none() | st.text(),
    st.text(min_size=1, max_size=60),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_what_was_written_is_read(data: Any, object_id: str | None, uuid_string: str, timestamp: float):
    event = DomainEvent("user.disabled", data, object_id, uuid_string, timestamp)
    assert DomainEvent.from_json(event.to_json()) == event
    assert DomainEvent.from_json(event.encode()) == event


@given(st.binary() | st.text() | any_json_text | any_json_text.map(str.encode))
def test_nothing_that_comes_in_raises_anything_but_malformed_event(raw: bytes | str):
    for read in (DomainEvent.from_json, DomainEvent.from_cloudevent):
        with contextlib.suppress(MalformedEvent):
            read(raw).encode()  # what can be read can be sent on


@given(
    st.dictionaries(st.sampled_from(KEYS), json_values | st.text(max_size=300)).map(json.dumps),
    st.dictionaries(st.sampled_from(["type", "id", "time", "subject", "data"]), json_values | st.datetimes().map(str)),
)
def test_no_value_of_a_known_key_raises_anything_but_malformed_event(raw: str, cloud: dict[str, Any]):
    for read, text in (
        (DomainEvent.from_json, raw),
        (DomainEvent.from_cloudevent, json.dumps({"specversion": "1.0", "type": "a", "id": "b"} | cloud)),
    ):
        with contextlib.suppress(MalformedEvent):
            read(text).encode()


def test_a_whole_body_is_read():
    event = DomainEvent.from_json(body(), retries=2)
    assert event == DomainEvent("user.disabled", {"user_id": 1}, "7", "abc", 1.5)
    assert event.retries == 2


def test_unknown_keys_are_kept_aside():
    event = DomainEvent.from_json(body(tenant="a", retries=9))
    assert event.extra == {"tenant": "a", "retries": 9}
    assert event.retries == 0


def test_null_data_is_data():
    assert DomainEvent.from_json(body(data=None)).data is None


@pytest.mark.parametrize("missing", [..., None])
def test_what_is_missing_comes_from_the_defaults(missing: Any):
    raw = body(uuid_string=missing, timestamp=missing, domain_object_id=missing)
    event = DomainEvent.from_json(raw, default_id="from-properties", default_timestamp=5)
    assert (event.uuid_string, event.timestamp, event.domain_object_id) == ("from-properties", 5.0, None)


def test_what_the_body_says_wins_over_the_defaults():
    event = DomainEvent.from_json(body(), default_id="from-properties", default_timestamp=5)
    assert (event.uuid_string, event.timestamp) == ("abc", 1.5)


def test_a_redelivery_without_an_id_has_the_same_made_up_id():
    raw = body(uuid_string=...)
    event = DomainEvent.from_json(raw)
    assert event.uuid_string == DomainEvent.from_json(raw.decode()).uuid_string
    assert event.uuid_string != DomainEvent.from_json(body(uuid_string=..., data=2)).uuid_string
    assert uuid.UUID(event.uuid_string).version == 8
    assert uuid.UUID(event.uuid_string).variant == uuid.RFC_4122
    assert abs(DomainEvent.from_json(body(timestamp=...)).timestamp - datetime.now(UTC).timestamp()) < 60


@pytest.mark.parametrize("key", ["*", "user.#", "a..b", ".", "a b", "ü" * 127])
def test_a_routing_key_that_only_the_broker_accepts_is_read(key: str):
    assert DomainEvent.from_json(body(routing_key=key)).routing_key == key


@pytest.mark.parametrize(("written", "read"), [(7, "7"), (1.5, "1.5"), ("", ""), (None, None)])
def test_an_object_id_that_is_a_number_becomes_a_string(written: Any, read: str | None):
    assert DomainEvent.from_json(body(domain_object_id=written)).domain_object_id == read


def test_a_byte_order_mark_is_skipped():
    assert DomainEvent.from_json(b"\xef\xbb\xbf" + body()) == DomainEvent.from_json(body())
    assert DomainEvent.from_json("\ufeff" + body().decode()) == DomainEvent.from_json(body())


def test_the_last_of_two_equal_keys_wins():
    raw = b'{"routing_key":"a","routing_key":"b","data":1,"data":2}'
    event = DomainEvent.from_json(raw)
    assert (event.routing_key, event.data) == ("b", 2)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the body is not JSON: Expecting value (at character 0)"),
        (b"hunter2", "the body is not JSON: Expecting value (at character 0)"),
        (b"{'a': 1}", "the body is not JSON"),
        (body() + b"x", "the body is not JSON: Extra data"),
        (b'{"a":"\xff"}', "the body is not UTF-8 (at byte 6)"),
        (body().decode().encode("utf-16"), "the body is not UTF-8 (at byte 0)"),
        (b"\xef\xbb\xbf" * 2 + body(), "the body is not JSON"),
        (b"[]", "the body is an array, not an object"),
        (b"null", "the body is null, not an object"),
        (b"true", "the body is a boolean, not an object"),
        (b"1", "the body is a number, not an object"),
        (b'"a"', "the body is a string, not an object"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"data":' * 100_000, "the body is nested too deeply"),
        (b'{"data":' + b"9" * 5000 + b"}", "the body holds an integer of too many digits"),
        (b'{"data":NaN}', "the body holds NaN, which is not JSON"),
        (b'{"data":[-Infinity]}', "the body holds -Infinity, which is not JSON"),
        (b'{"data":[1e999]}', "the body holds a number that is too large"),
        (b"{}", "the body has no routing_key"),
        (body(routing_key=...), "the body has no routing_key"),
        (body(routing_key=None), "the body has no routing_key"),
        (body(routing_key=7), "routing_key is a number, not a string"),
        (body(routing_key=""), "routing_key is empty"),
        (body(routing_key="a\nb"), "routing_key holds a control character"),
        (body(routing_key="\ud800"), "routing_key holds a control character"),
        (body(routing_key="x" * 256), "routing_key is longer than 255 bytes"),
        (body(data=...), "the body has no data"),
        (body(uuid_string=7), "uuid_string is a number, not a string"),
        (body(uuid_string=""), "uuid_string has 0 bytes; it must have 1 to 255"),
        (body(uuid_string="ü" * 128), "uuid_string has 256 bytes; it must have 1 to 255"),
        (body(uuid_string="\ud800"), "uuid_string holds a lone surrogate"),
        (body(timestamp="1.5"), "timestamp is a string, not a number"),
        (body(timestamp=True), "timestamp is a boolean, not a number"),
        (body(timestamp=10**400), "timestamp is too large"),
        (body(domain_object_id={}), "domain_object_id is an object, not a string or a number"),
        (body(domain_object_id=[]), "domain_object_id is an array, not a string or a number"),
        (body(domain_object_id=True), "domain_object_id is a boolean, not a string or a number"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason_and_without_the_payload(raw: bytes, reason: str):
    with pytest.raises(MalformedEvent) as caught:
        DomainEvent.from_json(raw)
    assert str(caught.value).startswith(reason)
    assert "hunter2" not in str(caught.value)


# CloudEvents


def cloudevent(**changes: Any) -> bytes:
    content = {
        "specversion": "1.0",
        "type": "com.example.user.disabled",
        "source": "/users",
        "id": "A234-1234-1234",
        "time": "2018-04-05T17:31:00Z",
        "subject": "7",
        "datacontenttype": "application/json",
        "comexampleextension": "value",
        "data": {"user_id": 1},
    } | changes
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


def test_a_cloudevent_is_read():
    event = DomainEvent.from_cloudevent(cloudevent(), retries=1)
    assert event == DomainEvent("com.example.user.disabled", {"user_id": 1}, "7", "A234-1234-1234", 1522949460.0)
    assert event.retries == 1
    assert event.extra == {
        "specversion": "1.0",
        "source": "/users",
        "datacontenttype": "application/json",
        "comexampleextension": "value",
    }


@pytest.mark.parametrize("missing", [..., None])
def test_a_cloudevent_needs_only_version_type_and_id(missing: Any):
    raw = cloudevent(source=missing, time=missing, subject=missing, data=missing, data_base64=missing)
    event = DomainEvent.from_cloudevent(raw, default_timestamp=5)
    assert (event.data, event.domain_object_id, event.timestamp) == (None, None, 5.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01t00:00:01z", 1.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00.5Z", 0.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456),
        ("0001-01-01T00:00:00+05:00", -62135614800.0),
    ],
)
def test_the_time_of_a_cloudevent_is_read(written: str, seconds: float):
    assert DomainEvent.from_cloudevent(cloudevent(time=written)).timestamp == seconds


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[]", "the body is an array, not an object"),
        (cloudevent(specversion=...), "the body is no CloudEvent of specversion 1.0"),
        (cloudevent(specversion="0.3"), "the body is no CloudEvent of specversion 1.0"),
        (cloudevent(specversion=1.0), "the body is no CloudEvent of specversion 1.0"),
        (cloudevent(type=...), "the body has no type"),
        (cloudevent(type=7), "type is a number, not a string"),
        (cloudevent(type="a\nb"), "type holds a control character"),
        (cloudevent(id=...), "the CloudEvent has no id"),
        (cloudevent(id=7), "id is a number, not a string"),
        (cloudevent(id=""), "id has 0 bytes; it must have 1 to 255"),
        (cloudevent(time=7), "time is a number, not a string"),
        (cloudevent(time="yesterday"), "time is not a time as RFC 3339 writes it"),
        (cloudevent(time="2018-04-05T17:31:00"), "time has no offset from UTC"),
        (cloudevent(subject={}), "subject is an object, not a string or a number"),
        (cloudevent(data_base64="eA=="), "the CloudEvent has data_base64; only JSON data can be read"),
    ],
)
def test_what_is_no_cloudevent_is_refused_with_the_reason(raw: bytes, reason: str):
    with pytest.raises(MalformedEvent) as caught:
        DomainEvent.from_cloudevent(raw)
    assert str(caught.value) == reason


# The public package domain-event-broker 3.0.2, whose exchange we share


@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_the_public_package_reads_what_we_write(data: dict[str, Any]):
    ours = DomainEvent("user.disabled", data, domain_object_id="7")
    theirs = domain_event_broker.DomainEvent.from_json(ours.encode())
    assert theirs.event_data == {
        "routing_key": "user.disabled",
        "data": data,
        "domain_object_id": "7",
        "uuid_string": ours.uuid_string,
        "timestamp": ours.timestamp,
    }


@given(st.dictionaries(st.text(), json_values, max_size=3), st.none() | st.text())
def test_we_read_what_the_public_package_writes(data: dict[str, Any], object_id: str | None):
    theirs = domain_event_broker.DomainEvent("user.disabled", data, domain_object_id=object_id)
    written = json.dumps(theirs.event_data)  # as its send_domain_event does
    ours = DomainEvent.from_json(written.encode())
    assert ours == DomainEvent("user.disabled", data, object_id, theirs.uuid_string, theirs.timestamp)
    assert ours.extra == {}


def test_both_write_the_same_keys_in_the_same_order():
    theirs = domain_event_broker.DomainEvent("user.disabled", {"a": 1}, "7", "abc", 1.5)
    ours = DomainEvent("user.disabled", {"a": 1}, "7", "abc", 1.5)
    assert json.dumps(theirs.event_data, separators=(",", ":")) == ours.to_json()


def test_ids_that_are_made_are_random_uuids_of_version_4() -> None:
    ids = [DomainEvent("user.made", None).uuid_string for _ in range(200)]
    assert len(set(ids)) == 200
    for text in ids:
        made = uuid.UUID(text)
        assert (str(made), made.version, made.variant) == (text, 4, uuid.RFC_4122)
    assert {text[19] for text in ids} == set("89ab")
