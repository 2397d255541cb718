"""A domain event: a fact in the past tense, and how it is written as and read from JSON."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Self, TypeVar
from uuid import UUID

from domain_events.errors import MalformedEvent
from domain_events.names import check_routing_key
from domain_events.reading import (
    id_from_hash,
    problem_of_id,
    read_id,
    read_object,
    read_object_id,
    read_rfc3339,
    read_routing_key,
    read_timestamp,
)
from domain_events.writing import write_event


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class DomainEvent:
    """A fact that others may react to: `DomainEvent('user.disabled', {'user_id': 1})`.

    Equal when the content is equal, whatever `retries` and `extra` say. `data` is not copied: do not change
    it afterwards.
    """

    routing_key: str
    data: Any
    domain_object_id: str | None
    uuid_string: str
    timestamp: float
    """Unix seconds, UTC."""
    retries: int
    """How often this receiver has retried this event; 0 at the first delivery."""
    extra: dict[str, Any] = dataclasses.field(init=False)
    """What else the received body held; of a CloudEvent its other attributes. Only to be read, never sent."""

    def __init__(
        self,
        routing_key: str,
        data: Any,
        domain_object_id: str | int | UUID | None = None,
        uuid_string: str | None = None,
        timestamp: float | datetime | None = None,
        retries: int = 0,
    ) -> None:
        """`uuid_string` and `timestamp` (Unix seconds, or an aware datetime) are made when not given.

        Raises InvalidName for a bad routing key, TypeError or ValueError naming any other bad field. What
        `data` holds is looked at when it is written.
        """
        check = _check_known_key if type(routing_key) is str else check_routing_key
        _set_routing_key(self, str.__str__(check(routing_key)))
        _set_data(self, data)
        _set_domain_object_id(self, _checked_object_id(domain_object_id))
        _set_uuid_string(self, _new_id() if uuid_string is None else _checked_id(uuid_string))
        _set_timestamp(self, time.time() if timestamp is None else _checked_timestamp(timestamp))
        _set_retries(self, retries if type(retries) is int and retries >= 0 else _checked_retries(retries))
        _set_extra(self, {})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DomainEvent):
            return NotImplemented
        return (
            self.uuid_string == other.uuid_string
            and self.routing_key == other.routing_key
            and self.timestamp == other.timestamp
            and self.domain_object_id == other.domain_object_id
            and bool(self.data == other.data)
        )

    def __hash__(self) -> int:
        return hash(self.uuid_string)

    def __repr__(self) -> str:
        # Without `data`: a repr ends in logs, a payload must not.
        return f"DomainEvent({self.routing_key!r}, uuid_string={self.uuid_string!r}, retries={self.retries})"

    def to_json(self) -> str:
        """The body as text. Raises UnsendableData, which names the place in `data` that cannot be written."""
        return self.encode().decode()

    def encode(self) -> bytes:
        """The body as it goes over the wire: a JSON object of five keys in UTF-8. Raises as `to_json`."""
        return write_event(self.routing_key, self.data, self.domain_object_id, self.uuid_string, self.timestamp)

    @classmethod
    def from_json(
        cls,
        body: bytes | str,
        *,
        default_id: str | None = None,
        default_timestamp: float | None = None,
        retries: int = 0,
    ) -> Self:
        """The event that `body` holds; a UTF-8 byte order mark is skipped. Raises MalformedEvent.

        The defaults stand for what the body lacks or has as null; without a default, the id is made from the
        body's hash, so that a redelivery has the same, and the timestamp is now. A wildcard or an empty word
        in the routing key is accepted: RabbitMQ lets others send those.
        """
        return read_body(cls, body, lambda: (default_id, default_timestamp), retries)

    @classmethod
    def from_cloudevent(cls, body: bytes | str, *, default_timestamp: float | None = None, retries: int = 0) -> Self:
        """The event that a CloudEvent 1.0 in structured JSON holds. Raises MalformedEvent.

        `type` becomes the routing key, `subject` the domain_object_id, `id` the uuid_string, `time` the
        timestamp; what else there is (`source`, extensions) goes to `extra`. An absent `data` is null; binary
        data (`data_base64`) cannot be read. `source`, which the specification requires, may be missing.
        See the CloudEvents JSON Event Format 1.0.2, sections 2 and 3.
        """
        content = read_object(body)
        if content.get("specversion") != "1.0":
            raise MalformedEvent("the body is no CloudEvent of specversion 1.0")
        if content.get("data_base64") is not None:
            raise MalformedEvent("the CloudEvent has data_base64; only JSON data can be read")
        content.pop("data_base64", None)
        routing_key = read_routing_key("type", content.pop("type", None))
        uuid_string = content.pop("id", None)
        if uuid_string is None:
            raise MalformedEvent("the CloudEvent has no id")
        timestamp = content.pop("time", None)
        return _make(
            cls,
            routing_key,
            content.pop("data", None),
            read_object_id("subject", content.pop("subject", None)),
            read_id("id", uuid_string),
            _now_or(default_timestamp) if timestamp is None else read_rfc3339(timestamp),
            retries,
            content,
        )


_MISSING: Any = object()
_Event = TypeVar("_Event", bound=DomainEvent)


def read_body(
    cls: type[_Event], body: bytes | str, defaults: Callable[[], tuple[str | None, float | None]], retries: int
) -> _Event:
    """As `DomainEvent.from_json`. `defaults` is asked, for id and timestamp, when the body lacks one of them."""
    content = read_object(body)
    uuid_string = content.pop("uuid_string", None)
    timestamp = content.pop("timestamp", None)
    routing_key = content.pop("routing_key", None)
    read_key = _read_known_key if type(routing_key) is str else read_routing_key
    routing_key = read_key("routing_key", routing_key)
    data = content.pop("data", _MISSING)
    if data is _MISSING:
        raise MalformedEvent("the body has no data")
    default_id, default_timestamp = (None, None) if uuid_string is not None and timestamp is not None else defaults()
    object_id = content.pop("domain_object_id", None)
    if type(object_id) is not str and object_id is not None:
        object_id = read_object_id("domain_object_id", object_id)
    if type(timestamp) is not float:
        timestamp = _now_or(default_timestamp) if timestamp is None else read_timestamp(timestamp)
    uuid_string = (default_id or id_from_hash(body)) if uuid_string is None else read_id("uuid_string", uuid_string)
    return _make(cls, routing_key, data, object_id, uuid_string, timestamp, retries, content)


def _make(
    cls: type[_Event],
    routing_key: str,
    data: Any,
    domain_object_id: str | None,
    uuid_string: str,
    timestamp: float,
    retries: int,
    extra: dict[str, Any],
) -> _Event:
    """An event from values that were checked already: reading is on the hot path of a consumer."""
    event = _new(cls)
    _set_routing_key(event, routing_key)
    _set_data(event, data)
    _set_domain_object_id(event, domain_object_id)
    _set_uuid_string(event, uuid_string)
    _set_timestamp(event, timestamp)
    _set_retries(event, retries)
    _set_extra(event, extra)
    return event


_new = object.__new__
# The slots themselves: faster than the way through the class, which looks each of them up by its name.
_slots: Any = DomainEvent
_set_routing_key = _slots.routing_key.__set__
_set_data = _slots.data.__set__
_set_domain_object_id = _slots.domain_object_id.__set__
_set_uuid_string = _slots.uuid_string.__set__
_set_timestamp = _slots.timestamp.__set__
_set_retries = _slots.retries.__set__
_set_extra = _slots.extra.__set__


# Remembered: a process sends and receives the same few again and again. Not what is refused, and only for strings:
# others may be equal to one, or have no hash.
_check_known_key = lru_cache(maxsize=1024)(check_routing_key)
_read_known_key = lru_cache(maxsize=1024)(read_routing_key)


def _new_id() -> str:
    """A random UUID, version 4 of RFC 9562, section 5.4. As `str(uuid4())`, which took half of the time that it took to
    make an event."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The two highest bits of the digit are 10."""


# What a caller gave: TypeError or ValueError, naming the field.


def _checked_object_id(value: object) -> str | None:
    if value is None or type(value) is str:
        return value
    match value:
        case str():
            return str.__str__(value)  # of an enum with str its content, not its name
        case int() if not isinstance(value, bool):
            return int.__repr__(value)
        case UUID():
            return str(value)
    raise TypeError(f"domain_object_id must be a string, an int or a UUID, not {type(value).__name__}")


def _checked_id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"uuid_string must be a string, not {type(value).__name__}")
    problem = problem_of_id(value)
    if problem:
        raise ValueError(f"uuid_string {problem}")
    return str.__str__(value)


def _checked_timestamp(value: object) -> float:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("timestamp: the datetime has no time zone; take datetime.now(timezone.utc)")
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timestamp must be Unix seconds or an aware datetime, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("timestamp must be a finite number of seconds")
    return seconds


def _checked_retries(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"retries must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"retries must be 0 or more, not {value}")
    return value


def _now_or(default: float | None) -> float:
    return time.time() if default is None else float(default)
