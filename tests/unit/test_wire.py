"""Properties and headers of events, retries and dead letters."""

from __future__ import annotations

import decimal
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.compat import long

from domain_events import DeadLetter, DomainEvent, MalformedEvent, Retry
from domain_events.transport.wire import (
    Failure,
    Progress,
    dead_letter_properties,
    event_properties,
    read_event,
    read_progress,
    retry_properties,
    shorten,
)
from tests.deliveries import received


def encoded(properties: BasicProperties) -> bytes:
    return b"".join(properties.encode())


def read(properties: BasicProperties, body: bytes) -> DomainEvent:
    """The event, which must not depend on whether the properties came as bytes."""
    event = read_event(received(properties, body))
    if isinstance(properties.content_type, str | None):  # else pika cannot write it
        assert repr_of(read_event(received(encoded(again(properties)), body))) == repr_of(event)
    return event


def repr_of(event: DomainEvent) -> tuple[Any, ...]:
    # The timestamp may be that of the moment.
    return (event.routing_key, event.data, event.domain_object_id, event.uuid_string, event.retries, event.extra)


def again(properties: BasicProperties) -> BasicProperties:
    """As they arrive."""
    arrived = BasicProperties()
    arrived.decode(encoded(properties))
    return arrived


FAILURE = Failure(reason="why", error_type="ValueError", error_message="what", traceback="where")


def dead(
    properties: BasicProperties, progress: Progress | None = None, failure: Failure = FAILURE, **more: Any
) -> BasicProperties:
    progress = progress or Progress("a.b", retries=3, first_failed_at=5.0)
    return again(dead_letter_properties(properties, progress, failure, receiver="printer", now=10.5, **more))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


# Events


def test_a_trace_context_is_not_even_decoded_to_read_an_event() -> None:
    event = DomainEvent("user.disabled", {"user_id": 1})
    properties = event_properties(event)
    properties.headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "tenant=blue"}
    delivery = received(encoded(properties), event.encode())
    assert read_event(delivery) == event
    assert type(delivery.raw_properties) is bytes


def test_an_event_has_the_properties_of_the_contract() -> None:
    event = DomainEvent("user.disabled", {"user_id": 1}, uuid_string="an-id", timestamp=1234567890.75)
    properties = again(event_properties(event, "shop"))
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.message_id) == (2, "an-id")
    assert (properties.timestamp, properties.type, properties.app_id) == (1234567890, "user.disabled", "shop")
    assert again(event_properties(event)).app_id is None


@pytest.mark.parametrize("timestamp", [-5.0, 0.0, 1e300, -1e300])
def test_any_timestamp_can_be_written(timestamp: float) -> None:
    event = DomainEvent("a.b", 1, timestamp=timestamp)
    assert 0 <= again(event_properties(event)).timestamp < 2**63
    assert read(event_properties(event), event.encode()) == event


def test_what_the_body_lacks_comes_from_the_properties() -> None:
    properties = BasicProperties(message_id="an-id", timestamp=7, headers={"domain-events-retries": 2})
    event = read(properties, b'{"routing_key": "a.b", "data": 1}')
    assert (event.uuid_string, event.timestamp, event.retries) == ("an-id", 7.0, 2)
    body = b'{"routing_key": "a.b", "data": 1, "uuid_string": "other", "timestamp": 1.5}'
    event = read(properties, body)
    assert (event.uuid_string, event.timestamp) == ("other", 1.5)


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents+json", "Application/CloudEvents+JSON", "application/cloudevents+json; charset=utf-8"],
)
def test_a_cloudevent_is_known_by_its_content_type(content_type: str) -> None:
    body = b'{"specversion": "1.0", "type": "a.b", "source": "/", "id": "1", "data": 5}'
    assert read(BasicProperties(content_type=content_type), body).data == 5
    with pytest.raises(MalformedEvent):
        read(BasicProperties(content_type="application/json"), body)


@pytest.mark.parametrize("content_type", ["text/plain", "", b"\xff", None, "application/octet-stream"])
def test_no_other_content_type_matters(content_type: Any) -> None:
    properties = BasicProperties(content_type=content_type, message_id=b"\xff", timestamp=None)  # type: ignore[arg-type]
    assert read(properties, b'{"routing_key": "a.b", "data": 1}').data == 1


# Progress


def test_without_headers_there_is_no_progress() -> None:
    for headers in (None, {}, {"other": 1}):
        assert read_progress("a.b", headers) == Progress("a.b", 0, None)


def test_a_retry_keeps_everything_and_counts_one_more() -> None:
    properties = BasicProperties(content_type="c", headers={"traceparent": "t", "n": [1]}, message_id="m", app_id="a")
    first = again(retry_properties(properties, read_progress("a.b", properties.headers), 5.25))
    assert first.headers == {
        "traceparent": "t",
        "n": [1],
        "domain-events-routing-key": "a.b",
        "domain-events-retries": 1,
        "domain-events-first-failed-at": "5.250000",
    }
    assert (first.content_type, first.message_id, first.app_id, first.delivery_mode) == ("c", "m", "a", 2)
    progress = read_progress("printer", first.headers)
    assert progress == Progress("a.b", 1, 5.25)
    second = again(retry_properties(first, progress, 9.0))
    assert read_progress("printer", second.headers) == Progress("a.b", 2, 5.25)


@pytest.mark.parametrize(
    ("forged", "retries"),
    [
        (1, 1),
        (long(7), 7),  # as pika reads what other clients write as 64 bits
        (2**31 + 5, 2**31),
        (long(2**62), 2**31),
        (0, 0),
        (-1, 0),
        (True, 0),
        ("3", 0),
        (b"3", 0),
        (None, 0),
        ([3], 0),
        ({"a": 3}, 0),
        (decimal.Decimal(3), 0),
    ],
)
def test_only_a_positive_number_is_a_count_of_retries(forged: Any, retries: int) -> None:
    progress = read_progress("a.b", {"domain-events-retries": forged})
    assert progress.retries == retries
    assert type(progress.retries) is int
    assert read_progress("a.b", again(retry_properties(BasicProperties(), progress, 1.0)).headers).retries == min(
        retries + 1, 2**31
    )


@pytest.mark.parametrize("forged", ["", "x" * 256, "ü" * 128, 5, b"a.b", None, ["a.b"]])
def test_only_what_can_be_a_routing_key_is_taken_for_the_original_one(forged: Any) -> None:
    assert read_progress("a.b", {"domain-events-routing-key": forged}).routing_key == "a.b"


@pytest.mark.parametrize("forged", ["", "yesterday", "nan", "inf", "-inf", 5, b"5", None, "9" * 5000])
def test_only_a_finite_number_is_a_time(forged: Any) -> None:
    assert read_progress("a.b", {"domain-events-first-failed-at": forged}).first_failed_at is None


HEADER_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["domain-events-retries", "domain-events-routing-key", "domain-events-first-failed-at", "x-death", "CC", "other"]
) | st.text(max_size=20)


@given(st.dictionaries(NAMES, HEADER_VALUES, max_size=6))
def test_no_header_can_stop_a_retry_or_a_dead_letter(headers: dict[str, Any]) -> None:
    arrived = again(BasicProperties(headers=headers))
    progress = read_progress("a.b", arrived.headers)
    retried = again(retry_properties(arrived, progress, 1.0))
    set_aside = dead(arrived, progress)
    kept = {
        name: value
        for name, value in (arrived.headers or {}).items()
        if not name.startswith(("domain-events-", "x-death", "x-first-", "x-last-"))
        and name not in ("CC", "BCC", "x-delivery-count", "x-acquired-count")
    }
    for properties in (retried, set_aside):
        foreign = {name: value for name, value in properties.headers.items() if not name.startswith("domain-events-")}
        assert foreign == kept


# What is stripped


@pytest.mark.parametrize(
    "name",
    [
        "x-death",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-first-death-exchange",
        "x-last-death-queue",
        "x-delivery-count",
        "x-acquired-count",
        "CC",
        "BCC",
    ],
)
def test_the_brokers_own_notes_are_stripped(name: str) -> None:
    properties = BasicProperties(headers={name: "1", "x-mine": "kept"})
    for copy in (again(retry_properties(properties, Progress("a.b"), 1.0)), dead(properties)):
        assert name not in copy.headers
        assert copy.headers["x-mine"] == "kept"


def test_what_would_make_the_broker_drop_or_refuse_a_copy_is_left_out() -> None:
    properties = BasicProperties(expiration="5", user_id="guest", delivery_mode=1, priority=4, reply_to="r")
    for copy in (again(retry_properties(properties, Progress("a.b"), 1.0)), dead(properties)):
        assert (copy.expiration, copy.user_id, copy.delivery_mode) == (None, None, 2)
        assert (copy.priority, copy.reply_to) == (4, "r")


def test_the_original_is_not_changed() -> None:
    properties = BasicProperties(headers={"CC": ["x"], "a": 1})
    retry_properties(properties, Progress("a.b"), 1.0)
    dead(properties)
    assert properties.headers == {"CC": ["x"], "a": 1}


# Dead letters


def test_a_dead_letter_tells_everything() -> None:
    headers = dead(BasicProperties(headers={"a": 1}), code_version="1.2.3").headers
    assert headers.pop("domain-events-host")
    assert headers.pop("domain-events-pid") > 0
    assert headers == {
        "a": 1,
        "domain-events-routing-key": "a.b",
        "domain-events-retries": 3,
        "domain-events-first-failed-at": "5.000000",
        "domain-events-dead-at": "10.500000",
        "domain-events-receiver": "printer",
        "domain-events-reason": "why",
        "domain-events-error-type": "ValueError",
        "domain-events-error-message": "what",
        "domain-events-traceback": "where",
        "domain-events-code-version": "1.2.3",
    }


def test_what_is_not_known_is_not_there() -> None:
    headers = dead(BasicProperties(), Progress("a.b"), Failure(reason="malformed")).headers
    for name in ("error-type", "error-message", "traceback", "code-version"):
        assert f"domain-events-{name}" not in headers
    assert headers["domain-events-first-failed-at"] == "10.500000"


def test_a_second_death_forgets_the_first() -> None:
    first = dead(BasicProperties())
    second = dead(first, failure=Failure(reason="other")).headers
    assert second["domain-events-reason"] == "other"


@pytest.mark.parametrize("character", ["x", "ü", "\U0001f600", "\ud800", "\0"])
def test_the_header_block_stays_below_64_kib_whatever_failed(character: str) -> None:
    failure = Failure(
        reason=character * 100_000,
        error_type="E" * 1000,
        error_message=character * 1_000_000,
        traceback=character * 1_000_000,
    )
    giant = {f"header-{n}": "x" * 10_000 for n in range(12)}
    properties = dead(BasicProperties(headers={**giant, "small": "kept"}, message_id="m" * 255), failure=failure)
    assert len(encoded(properties)) < 2**16
    assert properties.headers["small"] == "kept"
    assert properties.headers["domain-events-headers-left-out"] > 0
    assert len(properties.headers["domain-events-error-message"]) <= 2000
    assert len(properties.headers["domain-events-traceback"]) <= 16_000
    assert properties.message_id == "m" * 255


@pytest.mark.parametrize("character", ["x", "ü", "\U0001f600", "\ud800", "\0"])
@pytest.mark.parametrize("largest", [4076, 8172, 20_000])
def test_the_header_block_fits_into_the_frames_of_a_broker_that_has_small_ones(largest: int, character: str) -> None:
    failure = Failure(
        reason=character * 100_000,
        error_type="E" * 1000,
        error_message=character * 1_000_000,
        traceback=character * 1_000_000,
    )
    foreign = {f"header-{n}": "x" * 300 for n in range(12)}
    original = BasicProperties(headers={**foreign, "small": "kept"}, message_id="m" * 255, type="t" * 255)
    progress = Progress("k" * 255)
    letter = again(dead_letter_properties(original, progress, failure, receiver="r" * 200, now=1.0, largest=largest))
    retry = again(retry_properties(original, progress, 1.0, largest=largest))
    for properties in (letter, retry):
        assert len(encoded(properties)) <= largest
        assert properties.headers["domain-events-routing-key"] == "k" * 255
    assert letter.headers["domain-events-reason"]
    assert retry.headers["small"] == "kept"


def test_a_retry_of_giant_headers_leaves_some_out_too() -> None:
    properties = BasicProperties(headers={"giant": "x" * 100_000, "small": "kept"})
    copy = again(retry_properties(properties, Progress("a.b"), 1.0))
    assert len(encoded(copy)) < 2**16
    assert copy.headers["small"] == "kept"
    assert copy.headers["domain-events-retries"] == 1


def test_a_header_that_pika_reads_and_cannot_write_becomes_text() -> None:
    large = decimal.Decimal(2**31 - 1) * decimal.Decimal(10) ** 3
    copy = dead(BasicProperties(headers={"large": large, "small": decimal.Decimal("1.5")}))
    assert copy.headers["large"] == str(large)
    assert copy.headers["small"] == decimal.Decimal("1.5")


# Failures


def test_the_error_itself_is_shown() -> None:
    failure = Failure.of("why", raised(KeyError("user")))
    assert (failure.reason, failure.error_type, failure.error_message) == ("why", "KeyError", "'user'")
    assert failure.traceback is not None
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.endswith("KeyError: 'user'\n")


@pytest.mark.parametrize("wish", [Retry(1.0), DeadLetter("gone")])
def test_behind_a_wish_the_error_that_led_to_it_is_shown(wish: Exception) -> None:
    def explicit() -> None:
        try:
            raise LookupError("cause")
        except LookupError as error:
            raise wish from error

    def implicit() -> None:
        try:
            raise LookupError("cause")
        except LookupError:
            raise wish  # noqa: B904

    def alone() -> None:
        try:
            raise LookupError("cause")
        except LookupError:
            raise wish from None

    for raises, name in ((explicit, "LookupError"), (implicit, "LookupError"), (alone, type(wish).__name__)):
        wish.__cause__ = wish.__context__ = None
        wish.__suppress_context__ = False
        with pytest.raises(type(wish)) as caught:
            raises()
        assert Failure.of("why", caught.value).error_type == name


def test_another_error_is_not_replaced_by_its_cause() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    failure = Failure.of("why", error)
    assert (failure.error_type, failure.error_message) == ("ValueError", "outer")
    assert failure.traceback is not None
    assert "KeyError: 'inner'" in failure.traceback


def test_no_error_is_a_reason_alone() -> None:
    assert Failure.of("malformed", None) == Failure(reason="malformed")


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_be_shown_is_shown_as_such() -> None:
    failure = Failure.of("why", raised(Hostile()))
    assert failure.error_message == "(its __str__ raised RuntimeError)"
    assert failure.traceback


# Shortening


def test_a_short_text_stays_as_it_is() -> None:
    assert shorten("", 10) == ""
    assert shorten("x" * 10, 10) == "x" * 10


def test_a_long_text_keeps_both_ends() -> None:
    short = shorten("begin" + "x" * 10_000 + "end", 200)
    assert len(short) == 200
    assert short.startswith("begin")
    assert short.endswith("end")
    assert "characters left out" in short


@given(st.text(max_size=300), st.integers(60, 400))
def test_a_shortened_text_can_be_written_and_fits(text: str, longest: int) -> None:
    short = shorten(text, longest)
    assert len(short) <= longest
    short.encode()


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_lone_surrogates_become_escapes(text: str) -> None:
    shorten(text, 1000).encode()


def test_times_are_text_with_microseconds() -> None:
    headers = dead(BasicProperties(), Progress("a.b", 1, 1234567890.123456)).headers
    assert headers["domain-events-first-failed-at"] == "1234567890.123456"
    moment = read_progress("a.b", headers).first_failed_at
    assert moment is not None
    assert math.isclose(moment, 1234567890.123456, abs_tol=1e-6)
