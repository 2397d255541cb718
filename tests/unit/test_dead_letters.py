"""What a dead letter says, what it has in common with others, and which ones somebody means."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from domain_events import DomainEvent
from domain_events.cli.operator.letters import described
from domain_events.transport.dead_letters.fingerprint import Fingerprint, fingerprint_of
from domain_events.transport.dead_letters.groups import MOST_GROUPS, Groups
from domain_events.transport.dead_letters.letter import Letter
from domain_events.transport.dead_letters.wanted import Wanted
from domain_events.transport.outcomes import PREFIX, Outcome, asked_for, read_outcome, write_outcome
from domain_events.transport.wire import (
    DEAD_AT,
    ERROR_TYPE,
    OUTCOME_TO,
    REASON,
    REPLAY,
    RETRIES,
    ROUTING_KEY,
    TRACEBACK,
    replayed_properties,
)

TRACE = """\
Traceback (most recent call last):
  File "/srv/shop/app/handlers.py", line 12, in disable
    client.post(user)
  File "/srv/venv/lib/python3.12/site-packages/requests/api.py", line 115, in post
    return request("post", url)
  File "/usr/lib/python3.12/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError(...)
ValueError: no user 1
"""


def letter(body: bytes | None = None, tag: int = 1, **headers: Any) -> Letter:
    event = DomainEvent("user.disabled", {"user_id": 7}, uuid_string="an-id", timestamp=100.5)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    properties = BasicProperties(headers={f"domain-events-{name}": value for name, value in names.items()})
    return Letter(tag, "printer:dead", properties, event.to_json().encode() if body is None else body)


def test_the_place_is_the_last_frame_of_the_application():
    assert fingerprint_of("ValueError", TRACE, "the handler raised ValueError") == Fingerprint(
        "ValueError", "shop/app/handlers.py in disable"
    )


def test_the_same_place_on_another_host_at_another_line_is_the_same():
    other = TRACE.replace("/srv/shop/app", "/opt/releases/41/shop/app").replace("line 12", "line 14")
    other = other.replace("no user 1", "no user 2")
    assert fingerprint_of("ValueError", other, "").key == fingerprint_of("ValueError", TRACE, "").key
    assert fingerprint_of("KeyError", TRACE, "").key != fingerprint_of("ValueError", TRACE, "").key


@pytest.mark.parametrize(
    "between",
    [
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    ],
)
def test_of_errors_that_led_to_one_another_the_one_that_counts_is_taken(between: str):
    raised = 'Traceback (most recent call last):\n  File "/a/b/c.py", line 1, in give_up\n    raise DeadLetter()\n'
    text = f"{TRACE}\n{between}\n\n{raised}domain_events.policy.DeadLetter: no\n"
    assert fingerprint_of("ValueError", text, "").place == "shop/app/handlers.py in disable"
    assert fingerprint_of("DeadLetter", text, "").place == "a/b/c.py in give_up"


def test_without_a_traceback_the_reason_counts_without_its_numbers():
    one = fingerprint_of(None, None, "malformed: the body is not JSON: line 1 column 7")
    other = fingerprint_of(None, None, "malformed: the body is not JSON: line 2 column 31")
    assert one == other == Fingerprint("malformed", "the body is not JSON: line # column #")
    died = fingerprint_of("ConsumerDied", None, "consumer died 2x (SIGSEGV)")
    assert str(died) == "ConsumerDied at consumer died #x (SIGSEGV)"


@given(st.none() | st.text(), st.none() | st.text(), st.text())
def test_nothing_in_the_headers_can_break_a_fingerprint(kind: str | None, trace: str | None, reason: str):
    fingerprint = fingerprint_of(kind, trace, reason)
    assert len(fingerprint.key) == 8


def test_what_the_broker_has_set_aside_says_so():
    deaths = [{"time": datetime(2026, 11, 30, 12, 0, 0), "reason": "delivery_limit"}]
    properties = BasicProperties(headers={"x-death": deaths, "x-first-death-reason": "delivery_limit"})
    found = Letter(1, "printer:dead", properties, b"{}")
    assert found.reason == "set aside by the broker (delivery_limit)"
    assert found.dead_at == 1796040000.0


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from([DEAD_AT, ERROR_TYPE, REASON, TRACEBACK, RETRIES, ROUTING_KEY, REPLAY, "x-death"]), hostile
    ),
    st.binary() | hostile.map(lambda value: repr(value).encode(errors="replace")),
)
def test_no_letter_can_break_a_look(headers: dict[str, Any], body: bytes):
    found = Letter(1, "printer:dead", BasicProperties(headers=headers), body)
    json.dumps(found.summary)
    json.dumps(found.detail)
    assert found.fingerprint.key
    Wanted(ids=frozenset({"x"}), since=1.0, routing_key=bool).matches(found)
    Wanted(conditions=[lambda fields: True]).matches(found)


def test_all_that_is_wanted_must_be_true():
    found = letter(error_type="ValueError", dead_at="200.0", routing_key="user.disabled")
    for wanted, matches in [
        (Wanted(), True),
        (Wanted(error_type="ValueError", since=200.0, before=200.1), True),
        (Wanted(before=200.0), False),
        (Wanted(since=200.1), False),
        (Wanted(error_type="KeyError"), False),
        (Wanted(ids=frozenset({"an-id"}), routing_key=lambda key: key == "user.disabled"), True),
        (Wanted(ids=frozenset({"another"})), False),
        (Wanted(routing_key=lambda key: key != "user.disabled"), False),
        (Wanted(conditions=[lambda fields: fields["data"]["user_id"] == 7]), True),
        (Wanted(conditions=[lambda fields: fields["data"]["user_id"] == 8]), False),
        (Wanted(fingerprint=found.fingerprint.key), True),
        (Wanted(fingerprint="00000000"), False),
    ]:
        assert wanted.matches(found) is matches, wanted
    assert not Wanted(since=1.0).matches(letter())
    assert Wanted().is_everything
    assert not Wanted(since=1.0).is_everything


def test_groups_are_bounded_and_nothing_is_left_uncounted():
    groups = Groups()
    for number in range(MOST_GROUPS + 5):
        groups.add(letter(error_type=f"Error{number}", reason="r", dead_at=f"{100.0 + number}"))
    groups.add(letter(error_type="Error0", reason="r", dead_at="5.0", error_message="older"))
    assert groups.count == MOST_GROUPS + 6
    assert groups.others == 5
    largest = groups.largest_first[0]
    assert (largest.count, largest.first, largest.last, largest.said) == (2, 5.0, 100.0, "r")


def test_what_headers_say_takes_no_memory_to_speak_of():
    groups = Groups()
    groups.add(letter(error_type="E" * 60_000, error_message="m" * 60_000, traceback="t" * 60_000))
    [group] = groups.largest_first
    assert len(str(group.fingerprint)) + len(group.said) < 1000


@pytest.mark.parametrize("timestamp", [1e300, 1e20, -1e18, 253402300800.0, -62135596801.0])
def test_an_event_of_no_calendar_is_shown(timestamp: float):
    dead = letter(DomainEvent("user.disabled", 1, timestamp=timestamp).encode())
    assert any("sent at" in line for line in described(dead.detail, dead.fingerprint))


def test_a_replayed_event_carries_no_trace_of_its_failure_but_which_replay_it_was():
    dead = letter(
        error_type="E", dead_at="1.0", reason="r", retries=3, first_failed_at="1.0", routing_key="a.b", outcome_to="x"
    )
    dead.properties.headers["tenant"] = "kept"  # type: ignore[index]
    dead.properties.headers["x-death"] = [{}]  # type: ignore[index]
    properties = replayed_properties(dead.properties, dead.routing_key, "run", None)
    assert properties.headers == {"tenant": "kept", ROUTING_KEY: "a.b", REPLAY: "run"}
    again = replayed_properties(properties, "a.b", "another", "queue")
    assert again.headers == {"tenant": "kept", ROUTING_KEY: "a.b", REPLAY: "another", OUTCOME_TO: "queue"}


@pytest.mark.parametrize(
    "name", ["orders", "", "domain-events.outcome", PREFIX + "x" * 200, PREFIX + "é" * 70, 7, None, b"x"]
)
def test_no_header_makes_a_receiver_write_into_somebodys_queue(name: object):
    assert asked_for(BasicProperties(headers={OUTCOME_TO: name})) is None  # type: ignore[dict-item]


@given(st.sampled_from(["handled", "retried", "dead-lettered", "dropped"]), st.text(), st.none() | st.text())
def test_an_outcome_survives_its_way(kind: Any, event_id: str, reason: str | None):
    outcome = Outcome(id=event_id, kind=kind, delay=1.5, reason=reason, fingerprint="00112233")
    assert read_outcome(write_outcome(outcome)) == outcome


@given(st.binary() | hostile.map(lambda value: json.dumps(value, default=str).encode()))
def test_what_is_no_outcome_is_passed_over(body: bytes):
    assert read_outcome(body) is None
