"""What the page shows: rates, texts, and nothing that could be taken for HTML or for what it is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.web.depths import Depth
from domain_events.web.rates import Counts, Rates
from domain_events.web.rendering import (
    Templates,
    block,
    chip,
    duration,
    moment,
    number,
    packed,
    plural,
    rate,
    static_files,
    unpacked,
)
from domain_events.web.views import Overview, overview


def inspected(name: str = "printer", handled: int = 0, **changed: Any) -> dict[str, Any]:
    process = {
        "slot": f"{name}#0",
        "pid": 7,
        "state": "consuming",
        "restarts": 0,
        "uptime": 1.0,
        "handled": handled,
        "retried": 0,
        "dead_lettered": 0,
        "in_flight": None,
        "rss": 2**20,
        "reason": "",
        "due_in": None,
        "in_hand": [],
        "in_hand_count": 0,
        **changed,
    }
    receiver = {
        "name": name,
        "state": process["state"],
        "processes": [process],
        "last_exit": None,
        "retry_delays": [],
        "stacks": [],
    }
    return {
        "version": "1.0",
        "master": {"pid": 1, "state": "running", "uptime": 2.0},
        "receivers": [receiver],
    }


def view(inspection: dict[str, Any], depth: Depth | None = None) -> Overview:
    name = inspection["receivers"][0]["name"]
    depths = {} if depth is None else {name: depth}
    return overview(inspection, lambda _name: None, depths, setting_aside=lambda _name: True, now=100.0)


# Rates


def test_a_rate_is_the_mean_of_the_last_ten_seconds() -> None:
    rates = Rates()
    assert rates.of("printer") is None
    for second in range(31):
        rates.note(float(second), inspected(handled=second * (1 if second <= 20 else 3)))
        if not second:
            assert rates.of("printer") is None
    # From 20 at 20 s to 90 at 30 s.
    assert rates.of("printer") == Counts(handled=7.0)
    assert rates.of("other") is None


def test_after_a_long_pause_the_last_two_readings_count() -> None:
    rates = Rates()
    rates.note(0.0, inspected(handled=0))
    rates.note(100.0, inspected(handled=200))
    assert rates.of("printer") == Counts(handled=2.0)


def test_counts_that_went_away_with_a_process_are_no_negative_rate() -> None:
    rates = Rates()
    rates.note(0.0, inspected(handled=100))
    rates.note(1.0, inspected(handled=10))
    assert rates.of("printer") == Counts()


def test_readings_that_come_close_are_one() -> None:
    rates = Rates()
    rates.note(0.0, inspected(handled=0))
    rates.note(0.1, inspected(handled=1))
    assert rates.of("printer") is None


# Views


def test_totals_leave_out_what_is_not_known() -> None:
    shown = view(inspected(), Depth(queue=3, retry=None, dead=0))
    assert (shown.total("queue"), shown.total("retry"), shown.total("dead")) == (3, None, 0)
    assert shown.rate("handled") is None
    assert shown.consuming == 1
    assert view(inspected(), Depth(problem="gone")).problems == ["gone"]


def test_why_a_receiver_is_not_well_is_said_once() -> None:
    inspection = inspected(state="backoff", reason="exit 70")
    inspection["receivers"][0]["processes"] *= 2
    [receiver] = view(inspection).receivers
    assert receiver.reasons == ["exit 70"]
    assert (receiver.consuming, receiver.oldest, receiver.last_exit_text) == (0, None, "")


# Texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (99, "99 s"),
        (100, "2 min"),
        (7200, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_a_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_rates() -> None:
    assert [number(value) for value in (None, 0, 999, 1234567)] == ["–", "0", "999", "1\u202f234\u202f567"]
    assert [rate(value) for value in (None, 0.0, 0.25, 2.345, 1234.0)] == ["–", "0", "0.25", "2.3", "1\u202f234"]
    assert [plural(1, "event"), plural(2, "event")] == ["1 event", "2 events"]
    assert plural(0, "entry", "entries") == "0 entries"


@pytest.mark.parametrize("at", [None, float("nan"), float("inf"), 1e300, -1e300])
def test_a_moment_that_is_none(at: float | None) -> None:
    assert moment(at) == "–"


def test_a_moment_is_in_utc_and_for_machines_too() -> None:
    assert moment(0.5) == '<time datetime="1970-01-01T00:00:00.500+00:00">1970-01-01 00:00:00</time>'


@given(st.text(st.characters(exclude_categories=[])))
def test_what_is_packed_comes_back_as_it_was(text: str) -> None:
    assert unpacked(packed(text)) == text
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]*", packed(text))


HOSTILE = "<script>alert(1)</script>\"'&\x00\x1b[31m\r\n\u202e\u2028\ud800"


def test_nothing_hostile_gets_into_a_page() -> None:
    inspection = inspected(
        HOSTILE.replace("\ud800", ""),  # a name is UTF-8
        state=HOSTILE,
        reason=HOSTILE,
        in_hand=[{"id": HOSTILE, "seconds": 2.0}],
        in_hand_count=30,
    )
    inspection["receivers"][0]["last_exit"] = {"code": None, "signal": HOSTILE, "at": 1.0, "in_flight": HOSTILE}
    inspection["receivers"][0]["stacks"] = [{"slot": HOSTILE, "pid": 1, "at": 1.0, "text": HOSTILE}]
    templates = Templates(address=HOSTILE, version=HOSTILE)
    shown = view(inspection, Depth(problem=HOSTILE))
    common = {"may_change": True, "has_token": True, "form_token": HOSTILE}
    pages = [
        templates.render("overview.html", view=shown, **common),
        templates.render("receiver.html", each=shown.receivers[0], name=shown.receivers[0].name, **common),
        templates.render("login.html", next=HOSTILE, message=HOSTILE, **common),
        templates.render("said.html", title=HOSTILE, message=HOSTILE, is_bad=True, back=HOSTILE, **common),
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert not re.search(r"=\"[^\"]*alert\(1\)</script>\"'", page)
        for char in "\x00\x1b\r\u202e\u2028\ud800":
            assert char not in page
        assert "&lt;script&gt;" in page
        page.encode()


def test_lines_of_a_block_stay_lines_and_nothing_else() -> None:
    assert block("a\r\n\tb\x1b<i>") == "a\n\tb\\x1b&lt;i&gt;"
    assert chip("<b>") == '<span class="chip idle">&lt;b&gt;</span>'


def test_static_files_are_small_and_ask_nobody_else() -> None:
    files = static_files()
    assert set(files) == {"page.css", "page.js", "icon.svg"}
    for name, (content, _) in files.items():
        assert len(content) < 16_000
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//\w+\.|@import|url\(", text), name
