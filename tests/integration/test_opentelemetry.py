"""Traces on a real broker: from a sender by way of a retry to a handler, and on with what the handler sends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from domain_events import DomainEvent, Receiver, Retry, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.observing import Noted, observing
from tests.spans import Traces, traced


@pytest.fixture
def traces() -> Iterator[Traces]:
    with traced() as traces:
        yield traces


def headers_in(queues: Queues, queue: str) -> list[dict[str, Any]]:
    return [dict(properties.headers or {}) for _, properties, _ in queues.drain(queue)]


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return child.parent is not None and (child.parent.trace_id, child.parent.span_id) == (
        parent.context.trace_id,
        parent.context.span_id,
    )


# Sending


def test_every_way_of_sending_writes_the_context_of_each_event(
    broker: Broker, queues: Queues, unique: str, traces: Traces
) -> None:
    key, sender = unique + "key", Sender(broker.url)
    queue = queues.declare_watch(key)
    sender.send(key, 1)
    sender.send_many([(key, n) for n in range(3)])
    asyncio.run(sender.send_async(key, 1))
    asyncio.run(sender.send_many_async([(key, n) for n in range(3)]))
    written = [each["traceparent"].split("-")[2] for each in headers_in(queues, queue)]
    made = [*traces.all(f"send domain-events:{key}"), *traces.all(f"create domain-events:{key}")]
    assert sorted(written) == sorted(f"{span.context.span_id:016x}" for span in made if span.context)
    assert len(set(written)) == 8
    assert len(traces.all("send domain-events")) == 2


def test_events_have_no_headers_where_nobody_traces(broker: Broker, queues: Queues, unique: str) -> None:
    queue = queues.declare_watch(unique + "key")
    with observing(Noted()):
        Sender(broker.url).send(unique + "key", 1)
        Sender(broker.url).send_many([(unique + "key", n) for n in range(3)])
    assert [properties.headers for _, properties, _ in queues.drain(queue)] == [None] * 4


# Receiving

KINDS: dict[str, dict[str, Any]] = {"plain": {}, "threads": {"threads": 4}, "coroutines": {"concurrency": 4}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_goes_on_through_a_retry_and_what_the_handler_sends(
    kind: str, broker: Broker, queues: Queues, unique: str, traces: Traces
) -> None:
    first, second = queues.forget_after(unique + "first", 100), queues.forget_after(unique + "second")
    sender, seen = Sender(broker.url), Seen()

    def handle(event: DomainEvent) -> None:
        if not event.retries:
            raise Retry(0.1)
        sender.send(unique + "second", event.data)

    async def handle_async(event: DomainEvent) -> None:
        if not event.retries:
            raise Retry(0.1)
        await asyncio.sleep(0)
        await sender.send_async(unique + "second", event.data)

    receiver = Receiver(broker.url)
    handler: Any = handle_async if kind == "coroutines" else handle
    receiver.register(handler, first, [unique + "first"], max_retries=1, **KINDS[kind])
    receiver.register(seen, second, [unique + "second"])
    receiver.declare()
    n = 5
    with consuming(receiver):
        for number in range(n):
            sender.send(unique + "first", number)
        seen.wait(n)
        traces.wait(f"process domain-events:{unique}second:{second}", n)
    for sent in traces.all(f"send domain-events:{unique}first"):
        tries = [span for span in traces.all(f"process domain-events:{unique}first:{first}") if is_child(span, sent)]
        assert [dict(span.attributes or {}).get("domain_events.retries", 0) for span in tries] == [0, 1]
        assert [event.name for event in tries[0].events] == ["exception", "domain_events.retried"]
        assert sent.context is not None
        assert {link.context.span_id for span in tries for link in span.links} == {sent.context.span_id}
        [again] = [span for span in traces.all(f"send domain-events:{unique}second") if is_child(span, tries[1])]
        [last] = [
            span for span in traces.all(f"process domain-events:{unique}second:{second}") if is_child(span, again)
        ]
        assert last.context is not None
        assert last.context.trace_id == sent.context.trace_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_letter_keeps_its_trace_and_its_log_line_belongs_to_it(
    kind: str, broker: Broker, queues: Queues, unique: str, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    name = queues.forget_after(unique + "r")

    def handle(event: DomainEvent) -> None:
        raise ValueError("x")

    async def handle_async(event: DomainEvent) -> None:
        handle(event)

    logged: list[int] = []

    def note_trace(record: logging.LogRecord) -> bool:
        if "dead-letters" in record.getMessage():
            logged.append(trace.get_current_span().get_span_context().trace_id)
        return True

    caplog.handler.addFilter(note_trace)
    receiver = Receiver(broker.url)
    handler: Any = handle_async if kind == "coroutines" else handle
    receiver.register(handler, name, [unique + "key"], **KINDS[kind])
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    try:
        with consuming(receiver):
            queues.wait_count(f"{name}:dead", 1)
    finally:
        caplog.handler.removeFilter(note_trace)
    sent = traces.one(f"send domain-events:{unique}key")
    assert sent.context is not None
    [headers] = headers_in(queues, f"{name}:dead")
    assert headers["traceparent"].split("-")[1:3] == [f"{sent.context.trace_id:032x}", f"{sent.context.span_id:016x}"]
    assert logged == [sent.context.trace_id]


def test_what_is_not_sampled_leaves_no_span_and_is_handled_all_the_same(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, seen = queues.forget_after(unique + "r"), Seen()
    ids: list[int] = []

    def handle(event: DomainEvent) -> None:
        ids.append(trace.get_current_span().get_span_context().trace_id)
        seen(event)

    receiver = Receiver(broker.url)
    receiver.register(handle, name, [unique + "key"])
    receiver.declare()
    with traced(ParentBased(ALWAYS_OFF)) as traces, consuming(receiver):
        Sender(broker.url).send_many([(unique + "key", n) for n in range(3)])
        seen.wait(3)
    assert traces.spans == ()
    assert len(set(ids)) == 3  # each has its trace, that nobody records
    assert 0 not in ids


def test_headers_that_are_no_trace_context_harm_no_event(
    broker: Broker, queues: Queues, unique: str, traces: Traces
) -> None:
    name, seen = queues.forget_after(unique + "r"), Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    many: list[dict[str, Any]] = [
        {"traceparent": "00-" + "f" * 5000},
        {"traceparent": 7, "tracestate": {"a": [1]}, "baggage": "\n\n"},
        {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "=" * 9000, "baggage": ",;=" * 3000},
    ]
    for headers in many:
        properties = pika.BasicProperties(content_type="application/json", headers=headers)
        queues.publish(unique + "key", DomainEvent(unique + "key", 1).encode(), properties=properties)
    with consuming(receiver):
        seen.wait(3)
        spans = traces.wait(f"process domain-events:{unique}key:{name}", 3)
    assert [parent_of(span) for span in spans if span.parent] == ["2" * 16]
    assert queues.count(f"{name}:dead") == 0
