"""Traces by OpenTelemetry: a span for each event that is sent and for each that is handled.

Names, kinds and attributes are those of the semantic conventions 1.44.0: messaging/messaging-spans.md ("Span name",
"Span kind", "Trace structure") and messaging/rabbitmq.md ("RabbitMQ attributes"). Their status is Development: they may
change, and then these do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeAlias

try:
    from opentelemetry import context, propagate, trace
except ImportError as missing:
    raise ImportError("traces need the extra `opentelemetry`: pip install 'domain-events[opentelemetry]'") from missing
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from domain_events import tracing
from domain_events.events import DomainEvent
from domain_events.lifecycle import child_stopping
from domain_events.observers import NullObserver, observe
from domain_events.showing import printable
from domain_events.tracing import Arrival, Departure
from domain_events.transport.wire import LONGEST_MESSAGE, LONGEST_TRACEBACK, Failure, culprit_of, shorten
from domain_events.version import __version__

logger = logging.getLogger(__name__)

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

LAST_WORDS = 5_000
"""Milliseconds that exporting what is left may take when a process ends to consume."""

MOST_LINKS = MOST_EVENTS = 128
"""As many as a span keeps by default."""

Attributes: TypeAlias = dict[str, str | int | bool | float]


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Trace what is sent and handled by this process, and by those that are forked from it, from now on.

    Call it once, where your receivers are or where your service starts; again it changes nothing. `tracer_provider`:
    not given, the global one, which may be set later. The context goes along in the AMQP headers that the global
    propagator writes: `traceparent`, `tracestate` and `baggage`.
    """
    if isinstance(tracing.tracer, _OpenTelemetry):
        return
    traces = _OpenTelemetry(trace.get_tracer("domain_events", __version__, tracer_provider, SCHEMA))
    tracing.trace_with(traces)
    observe(traces)

    @child_stopping
    def export_what_is_left() -> None:
        # Of the SDK, not of the API. A child of the supervisor ends without atexit.
        flush = getattr(tracer_provider or trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(LAST_WORDS)


class _OpenTelemetry(NullObserver):
    """A `tracing.Tracer`, and the observer that writes down in its spans what became of an event."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._known: set[type[BaseException]] = set()

    # Sending

    def departs(self, exchange: str, events: Sequence[DomainEvent]) -> Departure:
        try:
            return self._departure(exchange, events)
        except Exception as error:  # noqa: BLE001 - samplers, processors and propagators may be the user's
            self._log(error)
            return Departure(headers=[{}] * len(events), done=lambda _errors: None)

    def _departure(self, exchange: str, events: Sequence[DomainEvent]) -> Departure:
        if len(events) == 1:
            span = self._span_of(exchange, events[0], "send")
            return Departure(headers=[_headers(span)], done=partial(self._sent, span, events))
        # A span for each event, so that each is the beginning of a story of its own, and one for the sending of them
        # all. The first ones end at once: there may be a hundred thousand, and whoever exports them bounds the memory.
        headers, links = list[dict[str, str]](), list[Link]()
        for event in events:
            span = self._span_of(exchange, event, "create")
            headers.append(_headers(span))
            if len(links) < MOST_LINKS:
                links.append(Link(span.get_span_context()))
            span.end()
        together = self._tracer.start_span(
            f"send {exchange}",
            kind=SpanKind.CLIENT,
            attributes={
                **_common("send", "send"),
                "messaging.destination.name": exchange,
                "messaging.batch.message_count": len(events),
            },
            links=links,
        )
        return Departure(headers=headers, done=partial(self._sent, together, events))

    def _sent(self, span: Span, events: Sequence[DomainEvent], errors: Sequence[BaseException | None]) -> None:
        try:
            failed = [(event, error) for event, error in zip(events, errors, strict=False) if error is not None]
            if failed:
                _, first = failed[0]
                _note_failure(span, first, str(first) or type(first).__name__)
            if len(events) > 1:
                for event, error in failed[:MOST_EVENTS]:
                    attributes = {
                        "messaging.message.id": printable(event.uuid_string),
                        "error.type": _name_of(type(error)),
                    }
                    span.add_event("domain_events.not_confirmed", attributes)
            span.end()
        except Exception as error:  # noqa: BLE001 - as above
            self._log(error)

    def _span_of(self, exchange: str, event: DomainEvent, operation: str) -> Span:
        destination = f"{exchange}:{event.routing_key}"
        return self._tracer.start_span(
            f"{operation} {destination}",
            kind=SpanKind.PRODUCER,
            attributes={
                **_common(operation, operation),
                "messaging.destination.name": destination,
                "messaging.rabbitmq.destination.routing_key": event.routing_key,
                "messaging.message.id": printable(event.uuid_string),
            },
        )

    # Handling

    @contextmanager
    def arrives(self, arrival: Arrival) -> Iterator[None]:
        process = os.getpid()
        span = self._begin(arrival)
        try:
            yield
        finally:
            # What the handler forked, and did not end, has no span of its own.
            if span is not None and os.getpid() == process:
                self._end(span)

    def _begin(self, arrival: Arrival) -> Span | None:
        try:
            before = context.get_current()
            ambient = trace.get_current_span(before).get_span_context()
            with_sender = propagate.extract(arrival.headers, before)
            sender = trace.get_current_span(with_sender).get_span_context()
            span = self._tracer.start_span(
                f"process {_destination(arrival)}",
                context=with_sender,
                kind=SpanKind.CONSUMER,
                attributes=_attributes(arrival),
                links=_links(sender, ambient),
            )
            # Never reset: the context is this event's own, and ends with it.
            _span.set(span)
            context.attach(trace.set_span_in_context(span, with_sender))
            return span
        except Exception as error:  # noqa: BLE001 - as above
            self._log(error)
            return None

    def _end(self, span: Span) -> None:
        try:
            span.end()
        except Exception as error:  # noqa: BLE001 - as above
            self._log(error)

    def failed(
        self, receiver: str, event: DomainEvent | None, seconds: float, error: BaseException | None, reason: str
    ) -> None:
        span = _span.get()
        if span is not None:
            _note_failure(span, error, reason)

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        span = _span.get()
        if span is not None:
            span.add_event("domain_events.retried", {"domain_events.delay": delay})

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        span = _span.get()
        if span is not None:
            span.add_event(
                "domain_events.dead_lettered", {"domain_events.reason": reason, "domain_events.dropped": dropped}
            )

    def _log(self, error: BaseException) -> None:
        if type(error) not in self._known:  # once: it may come with each event
            self._known.add(type(error))
            logger.error("an event is not traced; this kind of error is logged once", exc_info=error)


# Not trace.get_current_span(): a handler may have changed that, and not changed it back.
_span: ContextVar[Span | None] = ContextVar("domain_events_span", default=None)


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers, trace.set_span_in_context(span))
    return tracing.context_of(headers)  # what no receiver would believe need not be sent, and must not spoil the event


def _common(operation: str, kind: str) -> Attributes:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def _destination(arrival: Arrival) -> str:
    return printable(f"{arrival.exchange}:{arrival.routing_key}:{arrival.receiver}")


def _attributes(arrival: Arrival) -> Attributes:
    attributes: Attributes = {
        **_common("process", "process"),
        "messaging.destination.name": _destination(arrival),
        # A receiver is what messaging-spans.md, "Subscriptions", describes.
        "messaging.destination.subscription.name": arrival.receiver,
        "messaging.rabbitmq.destination.routing_key": printable(arrival.routing_key),
        "messaging.rabbitmq.message.delivery_tag": arrival.delivery_tag,
    }
    if arrival.event_id is not None:
        attributes["messaging.message.id"] = printable(arrival.event_id)
    if arrival.retries:
        attributes["domain_events.retries"] = arrival.retries
    return attributes


def _links(sender: SpanContext, ambient: SpanContext) -> list[Link]:
    """To the sender's span, which is the parent as well; and to the one that was there already and therefore is not.

    messaging-spans.md, "Message creation context as parent of "Process" span".
    """
    if sender == ambient:  # no trace came along
        return []
    return [Link(each) for each in (sender, ambient) if each.is_valid]


def _note_failure(span: Span, error: BaseException | None, reason: str) -> None:
    if not span.is_recording():
        return  # a traceback takes its time
    if error is None:
        span.set_attribute("error.type", "ConsumerDied")
    else:
        failure = Failure.of(reason, error)
        kind = _name_of(type(culprit_of(error)))
        span.set_attribute("error.type", kind)
        # As Span.record_exception would, but this may be an exception whose __str__ raises, or says megabytes.
        span.add_event(
            "exception",
            {
                "exception.type": kind,
                "exception.message": shorten(failure.error_message or "", LONGEST_MESSAGE),
                "exception.stacktrace": shorten(failure.traceback or "", LONGEST_TRACEBACK),
            },
        )
    span.set_status(Status(StatusCode.ERROR, shorten(reason, LONGEST_MESSAGE)))


def _name_of(kind: type[BaseException]) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return printable(name)
