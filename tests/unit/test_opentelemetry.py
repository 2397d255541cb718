"""Spans without a broker: names, attributes, parents and links, and that no trace spoils an event."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pika
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from domain_events import DomainEvent, Retry, tracing
from domain_events.errors import ConnectionFailed, SendError, SendTimeout
from domain_events.guarding import told
from domain_events.observers import registered
from domain_events.opentelemetry import instrument
from domain_events.oversight import Suspicion
from domain_events.telling import ObservedSender
from domain_events.tracing import LONGEST_TEXT, context_of
from domain_events.transport.settlement import Ack, Copy
from domain_events.transport.subscription import Delivery
from tests.deliveries import CHANNEL, Desk, Place, handling, runner
from tests.forking import fork, status_of
from tests.processes import ROOT
from tests.spans import Traces, traced, uninstrument

PROCESS = "process domain-events:user.made:printer"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}


@pytest.fixture
def traces() -> Iterator[Traces]:
    with traced() as traces:
        yield traces


def arrived(
    handler: Callable[[DomainEvent], Any], headers: Any = None, *, body: bytes | None = None, **given: Any
) -> Delivery:
    place: Any = Place(handling(handler, **given))
    event = DomainEvent("user.made", 1, uuid_string="id-1")
    properties = pika.BasicProperties(content_type="application/json", headers=headers, message_id="id-1")
    return Delivery(place, CHANNEL, 7, "user.made", properties, event.encode() if body is None else body)


def handle(handler: Callable[[DomainEvent], Any], headers: Any = None, *, is_async: bool = False, **given: Any) -> Desk:
    """With the tracer and the observers of this process."""

    async def handle_async(event: DomainEvent) -> Any:
        await asyncio.sleep(0)
        return handler(event)

    desk = Desk()
    observer: Any = told(registered())
    judge = given.pop("judge", None)
    made = runner(desk, told=observer, judge=judge, tracer=tracing.tracer)
    if is_async:
        asyncio.run(made.run_async(arrived(handle_async, headers, **given)))
    else:
        made.run(arrived(handler, headers, **given))
    return desk


class Broker:
    """Stands for the sender beneath: `errors` are what becomes of the events."""

    def __init__(self, *errors: SendError | None) -> None:
        self._errors = errors

    def send(self, messages: Sequence[Any], timeout: float) -> Sequence[SendError | None]:
        return self._errors

    async def send_async(self, messages: Sequence[Any], timeout: float) -> Sequence[SendError | None]:
        raise asyncio.CancelledError


def send(*events: DomainEvent, errors: Sequence[SendError | None] = ()) -> list[dict[str, str]]:
    """The headers of the events."""
    sender = ObservedSender(Broker(*(errors or [None] * len(events))), "domain-events", events, tracing.tracer)
    sender.send([], 1.0)
    return [dict(each) for each in sender.headers or ()]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return (span.parent.trace_id, span.parent.span_id) if span.parent is not None else None


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


# Sending


def test_an_event_that_is_sent_has_a_producer_span_whose_context_goes_along(traces: Traces) -> None:
    [headers] = send(DomainEvent("user.made", 1, uuid_string="id-1"))
    span = traces.one("send domain-events:user.made")
    assert span.kind is SpanKind.PRODUCER
    assert attributes(span) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "domain-events:user.made",
        "messaging.rabbitmq.destination.routing_key": "user.made",
        "messaging.message.id": "id-1",
    }
    trace_id, span_id = ids(span)
    assert set(headers) == {"traceparent"}
    assert headers["traceparent"].startswith(f"00-{trace_id:032x}-{span_id:016x}-")
    assert int(headers["traceparent"][-2:], 16) & 1  # sampled
    assert span.status.status_code is StatusCode.UNSET


def test_many_events_have_a_span_each_and_one_for_all_of_them(traces: Traces) -> None:
    headers = send(*(DomainEvent("user.made", n) for n in range(3)))
    made = traces.all("create domain-events:user.made")
    assert [each["traceparent"].split("-")[2] for each in headers] == [f"{ids(span)[1]:016x}" for span in made]
    together = traces.one("send domain-events")
    assert together.kind is SpanKind.CLIENT
    assert attributes(together)["messaging.batch.message_count"] == 3
    assert attributes(together)["messaging.operation.type"] == "send"
    assert links(together) == [ids(span) for span in made]
    assert {span.kind for span in made} == {SpanKind.PRODUCER}
    assert {attributes(span)["messaging.operation.type"] for span in made} == {"create"}


def test_an_event_that_is_not_confirmed_has_a_span_that_says_why(traces: Traces) -> None:
    send(DomainEvent("user.made", 1), errors=[SendTimeout("no confirm within 1 s")])
    span = traces.one("send domain-events:user.made")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no confirm within 1 s")
    assert attributes(span)["error.type"] == "domain_events.errors.SendTimeout"
    assert [event.name for event in span.events] == ["exception"]


def test_of_many_the_common_span_tells_which_are_not_confirmed_and_why(traces: Traces) -> None:
    errors: list[SendError | None] = [None] * 300
    errors[7] = SendTimeout("no confirm within 1 s")
    errors[9] = ConnectionFailed("not sent")
    send(*(DomainEvent("user.made", n, uuid_string=f"id-{n}") for n in range(300)), errors=errors)
    together = traces.one("send domain-events")
    assert (together.status.status_code, together.status.description) == (StatusCode.ERROR, "no confirm within 1 s")
    assert [
        dict(event.attributes or {}) for event in together.events if event.name == "domain_events.not_confirmed"
    ] == [
        {"messaging.message.id": "id-7", "error.type": "domain_events.errors.SendTimeout"},
        {"messaging.message.id": "id-9", "error.type": "domain_events.errors.ConnectionFailed"},
    ]
    assert len(together.links) == 128
    assert len(traces.all("create domain-events:user.made")) == 300


def test_a_send_that_is_cancelled_ends_its_span(traces: Traces) -> None:
    sender = ObservedSender(Broker(), "domain-events", [DomainEvent("user.made", 1)], tracing.tracer)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(sender.send_async([], 1.0))
    assert traces.one("send domain-events:user.made").status.status_code is StatusCode.ERROR


def test_baggage_goes_along(traces: Traces) -> None:
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        [headers] = send(DomainEvent("user.made", 1))
    finally:
        context.detach(token)
    assert headers["baggage"] == "tenant=blue"
    seen: list[object] = []
    handle(lambda _event: seen.append(baggage.get_baggage("tenant")), headers)
    assert seen == ["blue"]


def test_nothing_is_written_where_nobody_traces() -> None:
    assert tracing.tracer is None
    instrument()  # but there is no SDK that makes traces
    try:
        assert send(DomainEvent("user.made", 1)) == [{}]
        assert handle(print, SAMPLED).settlements == [Ack()]
    finally:
        uninstrument()


# Handling


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handled_event_has_a_span_that_is_child_of_the_senders_and_linked_to_it(
    traces: Traces, is_async: bool
) -> None:
    [headers] = send(DomainEvent("user.made", 1))
    handle(lambda _event: None, headers, is_async=is_async)
    sent, span = traces.one("send domain-events:user.made"), traces.one(PROCESS)
    assert span.kind is SpanKind.CONSUMER
    assert parent(span) == ids(sent)
    assert links(span) == [ids(sent)]
    assert attributes(span) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "domain-events:user.made:printer",
        "messaging.destination.subscription.name": "printer",
        "messaging.rabbitmq.destination.routing_key": "user.made",
        "messaging.rabbitmq.message.delivery_tag": 7,
        "messaging.message.id": "id-1",
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_handler_sends_belongs_to_the_trace(traces: Traces, is_async: bool) -> None:
    handle(lambda _event: send(DomainEvent("user.greeted", 1)), SAMPLED, is_async=is_async)
    handled, sent = traces.one(PROCESS), traces.one("send domain-events:user.greeted")
    assert parent(sent) == ids(handled)
    assert ids(sent)[0] == int(TRACE, 16)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_context_of_one_event_is_gone_before_the_next(traces: Traces, is_async: bool) -> None:
    def leaves_a_span(event: DomainEvent) -> None:
        context.attach(trace.set_span_in_context(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)))

    handle(leaves_a_span, SAMPLED, is_async=is_async)
    handle(lambda _event: None, is_async=is_async)
    first, second = traces.all(PROCESS)
    assert parent(first) == (int(TRACE, 16), int(SPAN, 16))
    assert parent(second) is None
    assert links(second) == []
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_ambient_span_is_linked_when_the_sender_is_the_parent(traces: Traces) -> None:
    with traces.provider.get_tracer("test").start_as_current_span("command") as command:
        handle(lambda _event: None, SAMPLED)
        handle(lambda _event: None)
    with_sender, without = traces.all(PROCESS)
    ambient = (command.get_span_context().trace_id, command.get_span_context().span_id)
    assert parent(with_sender) == (int(TRACE, 16), int(SPAN, 16))
    assert links(with_sender) == [(int(TRACE, 16), int(SPAN, 16)), ambient]
    assert parent(without) == ambient
    assert links(without) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_retry_is_an_event_of_the_span_with_its_delay_and_the_exception(traces: Traces, is_async: bool) -> None:
    def fails(event: DomainEvent) -> None:
        raise Retry(2.5) from OSError("the door is shut")

    [copy] = handle(fails, SAMPLED, is_async=is_async, max_retries=1).settlements
    span = traces.one(PROCESS)
    [exception, retried] = span.events
    assert (exception.name, retried.name) == ("exception", "domain_events.retried")
    assert dict(exception.attributes or {})["exception.type"] == "OSError"
    assert dict(exception.attributes or {})["exception.message"] == "the door is shut"
    assert "in fails" in str(dict(exception.attributes or {})["exception.stacktrace"])
    assert dict(retried.attributes or {}) == {"domain_events.delay": 2.5}
    assert attributes(span)["error.type"] == "OSError"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the handler asked for a retry")
    assert isinstance(copy, Copy)
    assert (copy.properties.headers or {})["traceparent"] == SAMPLED["traceparent"]


def test_a_retried_event_belongs_to_the_senders_trace_and_says_how_often(traces: Traces) -> None:
    handle(lambda _event: None, {**SAMPLED, "domain-events-retries": 2, "domain-events-routing-key": "user.made"})
    span = traces.one(PROCESS)
    assert parent(span) == (int(TRACE, 16), int(SPAN, 16))
    assert attributes(span)["domain_events.retries"] == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_dead_letter_is_an_event_of_the_span_with_its_reason(traces: Traces, is_async: bool) -> None:
    def fails(event: DomainEvent) -> None:
        raise ValueError("x")

    handle(fails, SAMPLED, is_async=is_async)
    span = traces.one(PROCESS)
    [_, dead] = span.events
    assert dead.name == "domain_events.dead_lettered"
    assert dict(dead.attributes or {}) == {
        "domain_events.reason": "the handler raised ValueError",
        "domain_events.dropped": False,
    }
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the handler raised ValueError")


def test_what_is_no_event_has_a_span_that_says_so(traces: Traces) -> None:
    handle(print, SAMPLED, body=b"hello")
    span = traces.one(PROCESS)
    assert parent(span) == (int(TRACE, 16), int(SPAN, 16))
    assert attributes(span)["error.type"] == "domain_events.errors.MalformedEvent"
    assert attributes(span)["messaging.message.id"] == "id-1"
    assert [event.name for event in span.events] == ["exception", "domain_events.dead_lettered"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_condemned_event_has_a_span_that_says_why(traces: Traces, is_async: bool) -> None:
    def judge(event_id: str) -> Suspicion:
        return Suspicion(deaths=2, cause="SIGSEGV", condemned=True)

    handle(print, SAMPLED, is_async=is_async, judge=judge)
    span = traces.one(PROCESS)
    assert attributes(span)["error.type"] == "ConsumerDied"
    assert span.status.description == "consumer died 2x (SIGSEGV)"
    assert [event.name for event in span.events] == ["domain_events.dead_lettered"]


def test_the_senders_sampling_decision_holds(traces: Traces) -> None:
    seen: list[int] = []
    [settlement] = handle(
        lambda _event: seen.append(trace.get_current_span().get_span_context().trace_id), NOT_SAMPLED
    ).settlements
    assert settlement == Ack()
    assert traces.spans == ()
    assert seen == [int(TRACE, 16)]


def test_what_is_not_sampled_is_sent_as_such() -> None:
    with traced(ParentBased(ALWAYS_OFF)) as traces:
        [headers] = send(DomainEvent("user.made", 1))
    assert not int(headers["traceparent"][-2:], 16) & 1
    assert traces.spans == ()


def test_nothing_is_formatted_for_a_span_that_nobody_records(traces: Traces) -> None:
    asked: list[str] = []

    class Costly(OSError):
        def __str__(self) -> str:
            asked.append("once more")
            return "costly"

    def fails(event: DomainEvent) -> None:
        raise Costly

    handle(fails, NOT_SAMPLED, max_retries=1, retry_on=Costly)
    assert asked == []
    handle(fails, SAMPLED, max_retries=1, retry_on=Costly)
    assert asked


# What must not harm


HOSTILE = [
    {"traceparent": b"\xff" * 10},
    {"traceparent": 7},
    {"traceparent": ""},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    {"traceparent": f"00-{TRACE}-{SPAN}-01\r\nSet-Cookie: x"},
    {"traceparent": f"00-{TRACE}-{SPAN}-" + "1" * 100_000},
    {"traceparent": {"traceparent": SAMPLED}},
    {"traceparent": "\ud800"},
    {**SAMPLED, "tracestate": "=,=,\x00" * 1000},
    {**SAMPLED, "tracestate": ["a=1"] * 1000},
    {"baggage": "a=1," * 10_000},
    {"baggage": "%00=%ff;%0d%0a=,=" * 100},
    {b"traceparent": "x", "x" * 255: "y"},
]


def test_only_short_printable_text_can_be_trace_context() -> None:
    longest = "x" * LONGEST_TEXT
    assert context_of({"a": "b", "long": longest, "longer": longest + "x"}) == {"a": "b", "long": longest}
    assert context_of({"a": 1, "b": b"b", "c": None, "d": ["d"], b"e": "e"}) == {}
    assert context_of({"a": "\n", "b": "\x00", "c": "\ud800", "d": "\u202e", "e": "\u00e9"}) == {}
    assert context_of(None) == {}


@pytest.mark.parametrize("headers", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("is_async", [False, True])
def test_hostile_headers_spoil_nothing(traces: Traces, headers: dict[Any, Any], is_async: bool) -> None:
    seen: list[DomainEvent] = []
    assert handle(seen.append, headers, is_async=is_async).settlements == [Ack()]
    assert len(seen) == 1
    [span] = traces.spans
    assert parent(span) in (None, (int(TRACE, 16), int(SPAN, 16)))
    assert json.loads(span.to_json())["status"] == {"status_code": "UNSET"}


def test_random_headers_spoil_nothing(traces: Traces) -> None:
    dice = random.Random(7)
    letters = "0123456789abcdef-,=;%\x00\xff\u202e\ud800 "
    for _ in range(300):
        headers = {
            name: "".join(dice.choices(letters, k=dice.randrange(80)))
            for name in ("traceparent", "tracestate", "baggage")
        }
        if dice.random() < 0.5:
            headers |= SAMPLED
        assert handle(lambda _event: None, headers).settlements == [Ack()]
    assert len(traces.spans) == 300


def test_hostile_text_of_an_event_is_printable_in_its_span(traces: Traces) -> None:
    event = DomainEvent("user.made", 1, uuid_string="id\x1b[31m\u202e")
    handle(print, body=event.encode())
    assert attributes(traces.one(PROCESS))["messaging.message.id"] == "id\\x1b[31m\\u202e"


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error", [Unsayable(), ValueError("\ud800"), ValueError("x" * 10_000_000)], ids=["raises", "surrogate", "long"]
)
def test_an_exception_that_cannot_be_shown_as_it_is_ends_the_span_well(traces: Traces, error: Exception) -> None:
    def fails(event: DomainEvent) -> None:
        raise error

    handle(fails)
    span = traces.one(PROCESS)
    assert span.status.status_code is StatusCode.ERROR
    for event in span.events:
        assert len(str(event.attributes).encode()) < 40_000


class Broken(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("on_end")


class BrokenPropagator(propagate.textmap.TextMapPropagator):
    fields = frozenset[str]()

    def extract(self, *args: Any, **given: Any) -> Any:
        raise RuntimeError("extract")

    def inject(self, *args: Any, **given: Any) -> Any:
        raise RuntimeError("inject")


@pytest.mark.parametrize("broken", ["processor", "propagator"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_processor_or_propagator_that_raises_spoils_no_event_and_is_logged_once(
    traces: Traces, broken: str, is_async: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = propagate.get_global_textmap()
    if broken == "processor":
        traces.provider.add_span_processor(Broken())
    else:
        propagate.set_global_textmap(BrokenPropagator())
    try:
        for _ in range(3):
            assert len(send(DomainEvent("user.made", 1))) == 1
            assert handle(lambda _event: None, SAMPLED, is_async=is_async).settlements == [Ack()]
    finally:
        propagate.set_global_textmap(before)
    assert [record.getMessage() for record in caplog.records if record.name == "domain_events.opentelemetry"] == [
        "an event is not traced; this kind of error is logged once"
    ]


def test_what_a_handler_forks_and_comes_back_from_it_ends_no_span(traces: Traces) -> None:
    """Its copy of the span would be exported as well, and twice."""
    reading, writing = os.pipe()

    def live() -> None:
        def forks(event: DomainEvent) -> None:
            if not os.fork():
                return  # comes back
            os.wait()

        parent_pid = os.getpid()
        try:
            handle(forks)
        finally:
            if os.getpid() != parent_pid:
                os.write(writing, f"{len(traces.spans)} in the fork;".encode())
                os._exit(0)
        os.write(writing, f"{len(traces.spans)} in its parent".encode())

    assert status_of(fork(live)) == 0
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == "0 in the fork;1 in its parent"


# Instrumenting


def test_to_instrument_twice_changes_nothing(traces: Traces) -> None:
    instrument(TracerProvider())
    send(DomainEvent("user.made", 1))
    assert len(traces.spans) == 1
    assert len([each for each in registered() if each is tracing.tracer]) == 1


def test_without_the_extra_the_error_names_it() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import domain_events.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "pip install 'domain-events[opentelemetry]'" in done.stderr


def test_who_does_not_instrument_does_not_load_it() -> None:
    code = (
        "import sys; from domain_events import Receiver, Sender, observe;"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
