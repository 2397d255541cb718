"""An event that has just been sent, on a line, on several, or as JSON. Pure but for the time zone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain_events.cli.operator.table import LOOKED_AT, beginning
from domain_events.events import DomainEvent
from domain_events.showing import printable

NARROW = 120
"""Columns of a terminal, below which ids are shortened: the data is what one looks for."""

LONGEST_BODY = 64 * 1024
"""Characters of what is no event that are shown to machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    routing_key: str
    """That it came with."""
    at: float
    """When it came, Unix seconds."""
    event: DomainEvent | None
    problem: str | None
    """Why it is no event."""
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """As conditions look at them."""
        event = self.event
        if event is None:
            return {
                "routing_key": self.routing_key,
                "data": None,
                "domain_object_id": None,
                "uuid_string": None,
                "timestamp": None,
            }
        return {
            "routing_key": event.routing_key,
            "data": event.data,
            "domain_object_id": event.domain_object_id,
            "uuid_string": event.uuid_string,
            "timestamp": event.timestamp,
        }

    @property
    def text(self) -> str:
        """What --grep looks through."""
        event = self.event
        if event is None:
            return f"{self.routing_key} {_readable(self.body)}"
        return f"{event.routing_key} {event.uuid_string} {event.domain_object_id or ''} {_json(event.data)}"


def as_json(seen: Seen) -> str:
    """One line, all of it ASCII."""
    shown = {
        **seen.fields,
        "received_key": seen.routing_key,
        "received_at": seen.at,
        "problem": seen.problem,
    }
    if seen.event is None:
        shown["body"] = _readable(seen.body)[:LONGEST_BODY]
    return json.dumps(shown)


def as_line(seen: Seen, width: int | None) -> str:
    """`width`: of the terminal; None: there is none, and nothing is shortened."""
    line = f"{_head(seen, width)}  {_rest(seen, width)}"
    return line if width is None else beginning(line, width)


def in_full(seen: Seen) -> Iterator[str]:
    """Lines."""
    yield _head(seen, None)
    if seen.event is None:
        yield f"    MALFORMED: {printable(seen.problem or '')}"
        yield f"    {printable(_readable(seen.body)[:LONGEST_BODY])}"
        return
    for line in json.dumps(seen.event.data, indent=2, ensure_ascii=False).split("\n"):
        yield f"    {printable(line)}"


def _head(seen: Seen, width: int | None) -> str:
    event = seen.event
    if event is None:
        return f"{_clock(seen.at, seen.at)} {printable(seen.routing_key)}"
    key = printable(event.routing_key)
    if seen.routing_key != event.routing_key:
        key += f" (came as {printable(seen.routing_key)})"
    identifier = printable(event.uuid_string)
    if width is not None and width < NARROW and len(identifier) > 9:
        identifier = f"{identifier[:8]}…"
    about = "-" if event.domain_object_id is None else printable(event.domain_object_id)
    return f"{_clock(event.timestamp, seen.at)} {key} {identifier} {about}"


def _rest(seen: Seen, width: int | None) -> str:
    # Not all of a text of megabytes is made printable for one line: more than `beginning` looks at is enough.
    most = None if width is None else LOOKED_AT * width + 1
    if seen.event is None:
        return printable(f"MALFORMED: {seen.problem}: {_readable(seen.body[:most])}")
    return printable(_json(seen.event.data)[:most])


def _clock(moment: float, now: float) -> str:
    """Local time; with its date when that is not today's. Both in Unix seconds."""
    try:
        time, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return f"{moment:g}"
    text = time.isoformat(sep=" ", timespec="milliseconds")
    return text[11:] if time.date() == today.date() else text


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


def _readable(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")
