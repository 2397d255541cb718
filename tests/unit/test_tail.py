"""What a line of `domain-events watch` looks like, whatever the event is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events import DomainEvent
from domain_events.cli.operator.table import beginning, text_width
from domain_events.cli.operator.tail import Seen, as_json, as_line, in_full

NOW = 1_764_500_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def seen(event: DomainEvent | None = None, routing_key: str | None = None, body: bytes = b"") -> Seen:
    key = routing_key or (event.routing_key if event else "user.a")
    return Seen(routing_key=key, at=NOW, event=event, problem=None if event else "the body is not JSON", body=body)


def test_a_line() -> None:
    event = DomainEvent("user.a", {"n": 1}, "7", "dc02f4dd-d35c-4989-997f-3a65500d9aaf", NOW - 0.25)
    line = '10:53:19.750 user.a dc02f4dd-d35c-4989-997f-3a65500d9aaf 7  {"n": 1}'
    assert as_line(seen(event), None) == line
    assert as_line(seen(event), 120) == line
    assert as_line(seen(event), 80) == '10:53:19.750 user.a dc02f4dd… 7  {"n": 1}'
    assert as_line(seen(event), 40) == '10:53:19.750 user.a dc02f4dd… 7  {"n": …'
    assert as_line(seen(event, "other"), None).startswith("10:53:19.750 user.a (came as other) dc02")


@pytest.mark.parametrize(
    ("timestamp", "clock"),
    [
        (NOW - 86400, "2025-11-29 10:53:20.000 "),
        (0.0, "1970-01-01 00:00:00.000 "),
        (1e300, "1e+300 "),
        (-1e300, "-1e+300 "),
        (1e12, "1e+12 "),
    ],
)
def test_another_day_has_a_date_and_nonsense_is_shown_as_it_is(timestamp: float, clock: str) -> None:
    assert as_line(seen(DomainEvent("user.a", 1, None, "x", timestamp)), None) == f"{clock}user.a x -  1"


def test_what_is_no_event() -> None:
    shown = seen(body=b"{\xff\n")
    assert as_line(shown, None) == "10:53:20.000 user.a  MALFORMED: the body is not JSON: {\\xff\\n"
    assert list(in_full(shown)) == ["10:53:20.000 user.a", "    MALFORMED: the body is not JSON", "    {\\xff\\n"]
    assert json.loads(as_json(shown))["problem"] == "the body is not JSON"
    assert len(as_json(seen(body=b"x" * 10_000_000))) < 100_000
    assert len(as_line(seen(body=b"x" * 10_000_000), 80)) == 80


@given(data=JSON, about=st.none() | st.text(), width=st.none() | st.integers(1, 200), key=st.text(min_size=1))
def test_whatever_it_is_it_stays_on_its_lines(data: Any, about: str | None, width: int | None, key: str) -> None:
    event = DomainEvent("user.a", data, about, "id", NOW)
    line = as_line(seen(event, key), width)
    assert line.isprintable()
    assert width is None or text_width(line) <= width
    assert all(each.isprintable() for each in in_full(seen(event, key)))
    shown = json.loads(as_json(seen(event, key)))
    assert (shown["data"], shown["domain_object_id"], shown["received_key"]) == (data, about, key)


def test_data_as_deep_as_it_may_be_is_shown() -> None:
    data: Any = 1
    for _ in range(498):
        data = [data]
    event = DomainEvent.from_json(DomainEvent("user.a", data).to_json())
    assert len(list(in_full(seen(event)))) == 2 * 498 + 2


@given(text=st.text(), width=st.integers(1, 30))
def test_the_beginning_fits_and_says_that_it_is_one(text: str, width: int) -> None:
    found = beginning(text, width)
    assert text_width(found) <= width
    assert found == text or found.endswith("…")
    assert text.startswith(found.removesuffix("…"))
