"""One dead letter: what its properties and its body say. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypedDict

from pika import BasicProperties

from domain_events.errors import MalformedEvent
from domain_events.events import DomainEvent
from domain_events.transport.dead_letters.fingerprint import Fingerprint, fingerprint_of
from domain_events.transport.wire import (
    DEAD_AT,
    ERROR_MESSAGE,
    ERROR_TYPE,
    HOST,
    LARGE,
    REASON,
    REPLAY,
    TRACEBACK,
    garbage_id,
    known_id,
    read_event,
    read_progress,
    seconds_in,
    text_in,
)


class Summary(TypedDict):
    """What `dead-letters list --json` shows of each. Times are Unix seconds."""

    id: str
    routing_key: str
    reason: str
    error_type: str | None
    error_message: str | None
    retries: int
    sent_at: float | None
    dead_at: float | None
    host: str | None


class Detail(Summary):
    """What `show` adds. `data` is what the event's data is, or the body as text where it is no event."""

    data: Any
    traceback: str | None


class Letter:
    """Made of a delivery; most of it is read only when somebody asks."""

    def __init__(self, tag: int, routing_key: str, properties: BasicProperties, body: bytes) -> None:
        self.tag = tag
        self.properties = properties
        self.body = body
        self._headers: Mapping[str, Any] = properties.headers or {}
        self._routing_key = routing_key

    # As `wire.Received`

    is_plain = False

    @property
    def routing_key(self) -> str:
        """Of the event, not of the queue that it lies in."""
        return read_progress(self._routing_key, self._headers).routing_key

    @cached_property
    def event(self) -> DomainEvent | None:
        """None: it is no domain event."""
        try:
            return read_event(self)
        except MalformedEvent:
            return None

    @property
    def _small_event(self) -> DomainEvent | None:
        return self.event if len(self.body) < LARGE else None

    @property
    def id(self) -> str:
        if len(self.body) >= LARGE:
            return known_id(self.properties, self.body)
        event = self.event
        return event.uuid_string if event is not None else garbage_id(self.properties, self.body)

    @property
    def reason(self) -> str:
        return text_in(self._headers, REASON) or _reason_of_the_broker(self._headers)

    @property
    def error_type(self) -> str | None:
        return text_in(self._headers, ERROR_TYPE)

    @property
    def error_message(self) -> str | None:
        return text_in(self._headers, ERROR_MESSAGE)

    @property
    def traceback(self) -> str | None:
        return text_in(self._headers, TRACEBACK)

    @property
    def dead_at(self) -> float | None:
        return seconds_in(self._headers, DEAD_AT) or _death_of_the_broker(self._headers)

    @property
    def replay(self) -> str | None:
        """The last replay that has sent it to its receiver, in vain."""
        return text_in(self._headers, REPLAY)

    @property
    def fingerprint(self) -> Fingerprint:
        return fingerprint_of(self.error_type, self.traceback, self.reason)

    @property
    def summary(self) -> Summary:
        event = self._small_event
        stamp = self.properties.timestamp
        return {
            "id": self.id,
            "routing_key": event.routing_key if event is not None else self.routing_key,
            "reason": self.reason,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "retries": read_progress("", self._headers).retries,
            "sent_at": event.timestamp if event is not None else float(stamp) if isinstance(stamp, int) else None,
            "dead_at": self.dead_at,
            "host": text_in(self._headers, HOST),
        }

    @property
    def detail(self) -> Detail:
        event = self.event
        data = event.data if event is not None else self.body.decode(errors="backslashreplace")
        return {**self.summary, "data": data, "traceback": self.traceback}

    @property
    def fields(self) -> Mapping[str, Any]:
        """What conditions on an event are about."""
        event = self.event
        if event is None:
            return {"routing_key": self.routing_key, "uuid_string": self.id}
        fields: Mapping[str, Any] = json.loads(event.to_json())
        return fields


def _reason_of_the_broker(headers: Mapping[str, Any]) -> str:
    """Of what the broker itself has set aside, at the delivery limit of its queue."""
    reason = text_in(headers, "x-last-death-reason") or text_in(headers, "x-first-death-reason")
    return f"set aside by the broker ({reason})" if reason else "unknown: it was not put here by domain-events"


def _death_of_the_broker(headers: Mapping[str, Any]) -> float | None:
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return None
    times = [death.get("time") for death in deaths if isinstance(death, dict)]
    # pika reads them as times without a zone, which are in UTC.
    return max((time.replace(tzinfo=UTC).timestamp() for time in times if isinstance(time, datetime)), default=None)
