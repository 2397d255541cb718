"""What `--where` makes of events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.cli.operator.conditions import FIELDS, all_hold, parse_condition
from domain_events.cli.operator.parsing import UsageError, moment

EVENT: dict[str, Any] = {
    "routing_key": "user.disabled",
    "data": {
        "user_id": 7,
        "name": "7",
        "score": 1.5,
        "active": True,
        "gone": None,
        "tags": ["new", 3, {"deep": "yes"}],
        "a.b": {"x=y": 1},
        "at": "2026-11-30",
    },
    "domain_object_id": "7",
    "uuid_string": "dc02f4dd-d35c-4989-997f-3a65500d9aaf",
    "timestamp": 1_764_500_000.0,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("routing_key=user.disabled", True),
        ("routing_key=user.enabled", False),
        ("routing_key!=user.enabled", True),
        ("routing_key~disab", True),
        ("data.user_id=7", True),
        ("data.user_id==7", True),
        ("data.user_id=7.0", True),
        ("data.user_id=8", False),
        ('data.user_id="7"', False),
        ("data.name=7", True),
        ('data.name="7"', True),
        ("domain_object_id=7", True),
        ("data.user_id>6", True),
        ("data.user_id>7", False),
        ("data.user_id>=7", True),
        ("data.user_id<7.5", True),
        ("data.user_id<=6", False),
        ("data.user_id>x", False),
        ("data.active=true", True),
        ("data.active=1", False),
        ("data.active>0", False),
        ("data.gone=null", True),
        ("data.nothing=null", True),
        ("data.nothing!=1", True),
        ("data.nothing<1", False),
        ("data.nothing~1", False),
        ("data.nothing.deeper=1", False),
        ("data.user_id.deeper=1", False),
        ("data.tags.0=new", True),
        ("data.tags.-2=3", True),
        ("data.tags.3=null", True),
        ("data.tags.2.deep=yes", True),
        ("data.tags~new", True),
        ("data.tags~3", True),
        ("data.tags~old", False),
        ("data~user_id", True),
        ('data~"user_id"', True),
        ("data~7", False),
        ('data."a.b"."x=y"=1', True),
        ("data.at>2026-11", True),
        ("data.at>2026", True),
        ("data.at<2026-11-30", False),
        ("data.score=1.5", True),
        ("data.tags=[]", False),
        ('data.tags=["new", 3, {"deep": "yes"}]', True),
        ("timestamp<2026-11-30T12:00:00Z", True),
        ("timestamp>2027-01-01T00:00:00+01:00", False),
        ("timestamp>1764499999", True),
        (" data.user_id =7", True),
    ],
)
def test_a_condition_holds_or_not(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(EVENT) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "data",
        "data.user_id",
        "=7",
        "user_id=7",
        ".data=7",
        "data.=7",
        "data..x=7",
        'data."a=7',
        "data*7",
        'data."\\x"=1',
    ],
)
def test_what_is_no_condition_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"PATH=VALUE.*data\.user_id=7"):
        parse_condition(text)


def test_a_forgotten_data_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"\(data\.user_id\?\)"):
        parse_condition("user_id=7")


def test_a_hostile_condition_is_shown_on_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        parse_condition("\x1b[2J\n" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_all_conditions_have_to_hold() -> None:
    conditions = [parse_condition("data.user_id=7"), parse_condition("routing_key~user")]
    assert all_hold(conditions, EVENT)
    assert all_hold([], EVENT)
    assert not all_hold([*conditions, parse_condition("data.user_id=8")], EVENT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    data=JSON,
    text=st.text(max_size=30),
    path=st.lists(st.text(max_size=4), max_size=3),
    operator=st.sampled_from(["=", "!=", "<", ">", "<=", ">=", "~"]),
)
def test_no_event_makes_a_condition_fail(data: Any, text: str, path: list[str], operator: str) -> None:
    whole = ".".join(["data", *(json.dumps(step) for step in path)])
    assert parse_condition(f"{whole}{operator}{text}").holds({**dict.fromkeys(FIELDS), "data": data}) in (True, False)


@given(key=st.text(), value=JSON)
def test_every_key_can_be_named_and_every_value_be_written(key: str, value: Any) -> None:
    equal = parse_condition(f"data.{json.dumps(key)}={json.dumps(value)}")
    other = parse_condition(f"data.{json.dumps(key)}!={json.dumps(value)}")
    event = {**dict.fromkeys(FIELDS), "data": {key: value}}
    assert equal.holds(event)
    assert not other.holds(event)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1764500000.25", 1_764_500_000.25),
        ("-1", -1.0),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01t01:01:00.5+01:00", 60.5),
    ],
)
def test_a_time_is_unix_seconds_or_has_a_zone(text: str, seconds: float) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "1e999", "yesterday", "2026-11-30", "2026-11-30T12:00:00", "\x1b[2J"]
)
def test_other_times_are_refused_on_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        moment(text)
    assert str(caught.value).isprintable()
