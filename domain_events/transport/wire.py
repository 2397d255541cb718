"""What an event, a retry and a dead letter look like on the wire. Pure but for the clock passed in.

Our own headers begin with `domain-events-`: RabbitMQ from 4.0 on ignores or strips `x-` headers from clients.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from pika import BasicProperties, exceptions

from domain_events.errors import MalformedEvent
from domain_events.events import DomainEvent, read_body
from domain_events.names import LONGEST_KEY
from domain_events.oversight import Suspicion
from domain_events.policy import LONGEST_REASON
from domain_events.reading import id_from_hash
from domain_events.showing import one_line, printable
from domain_events.transport.tolerance import HEADERS_LEFT_OUT

CLOUDEVENTS = "application/cloudevents+json"

ROUTING_KEY = "domain-events-routing-key"
RETRIES = "domain-events-retries"
FIRST_FAILED_AT = "domain-events-first-failed-at"
REASON = "domain-events-reason"
ERROR_TYPE = "domain-events-error-type"
ERROR_MESSAGE = "domain-events-error-message"
TRACEBACK = "domain-events-traceback"
RECEIVER = "domain-events-receiver"
HOST = "domain-events-host"
PID = "domain-events-pid"
DEAD_AT = "domain-events-dead-at"
CODE_VERSION = "domain-events-code-version"
REPLAY = "domain-events-replay"
"""Which replay has brought a dead letter back to its receiver. It stays: when the event fails again, it is known."""
OUTCOME_TO = "domain-events-outcome-to"
"""The queue that wants to hear what becomes of the event: see `outcomes`."""

_OF_A_DEAD_LETTER = frozenset(
    {REASON, ERROR_TYPE, ERROR_MESSAGE, TRACEBACK, RECEIVER, HOST, PID, DEAD_AT, CODE_VERSION}
)
_WORDS = frozenset({REASON, ERROR_TYPE, ERROR_MESSAGE, CODE_VERSION})
"""Those of ours that may be long."""

LARGE = 2**20
"""Bytes. To read a larger body is dangerous: it may take thirty times as much memory. Whoever settles such an event,
and whoever looks at its letter, knows it by `known_id`."""

LONGEST_TYPE = 200
LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 16_000
LARGEST_HEADERS = 60_000
"""Bytes. The header block is one frame; 64 KiB is half of RabbitMQ's default frame_max."""

_MOST_RETRIES = 2**31
_LATEST = 253402300799.0  # the end of the year 9999, the last of most calendars
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "bzip2", "lz4", "snappy", "xz"})

# The broker's own notes. From 4.0 on it ignores these when a client sends them; before, x-death counts that we sent
# would be believed, and CC would make more copies.
_BROKER_HEADERS = frozenset({"x-delivery-count", "x-acquired-count", "CC", "BCC"})
_BROKER_PREFIXES = ("x-death", "x-first-", "x-last-")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far this receiver has come with an event, from the headers that we put there ourselves."""

    routing_key: str
    retries: int = 0
    first_failed_at: float | None = None  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an event became a dead letter."""

    reason: str
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None

    @classmethod
    def of_death(cls, suspicion: Suspicion) -> Failure:
        """Of an event that is condemned: its handler is not called again. The stacks stand where a traceback would."""
        return cls(
            reason=suspicion.reason,
            error_type="ConsumerDied",
            error_message=suspicion.cause,
            traceback=suspicion.stacks or None,
        )

    @classmethod
    def of(cls, reason: str, error: BaseException | None) -> Failure:
        if error is None:
            return cls(reason=reason)
        culprit = culprit_of(error)
        return cls(
            reason=reason,
            error_type=type(culprit).__name__,
            error_message=_text_of(culprit),
            traceback=_traceback_of(error),
        )


def culprit_of(error: BaseException) -> BaseException:
    """A handler that raises Retry or DeadLetter because of another error means that other one."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return cause if cause is not None and type(error).__module__ == "domain_events.policy" else error


def event_properties(event: DomainEvent, app_id: str | None = None) -> BasicProperties:
    return _EventProperties(event, app_id)


_UNSIGNED = struct.Struct(">Q").pack


class _EventProperties(BasicProperties):
    """What our events have is set, the rest is there for all of them: pika sets fourteen attributes each time."""

    content_type = "application/json"
    content_encoding = "utf-8"
    headers = None
    delivery_mode = 2
    _SAME_FOR_ALL = (
        BasicProperties.FLAG_CONTENT_TYPE
        | BasicProperties.FLAG_CONTENT_ENCODING
        | BasicProperties.FLAG_DELIVERY_MODE
        | BasicProperties.FLAG_MESSAGE_ID
        | BasicProperties.FLAG_TIMESTAMP
        | BasicProperties.FLAG_TYPE
    ).to_bytes(2, "big") + b"\x10application/json\x05utf-8\x02"
    priority = None
    correlation_id = None
    reply_to = None
    expiration = None
    user_id = None
    cluster_id = None

    def __init__(self, event: DomainEvent, app_id: str | None) -> None:
        self.message_id = event.uuid_string
        # An AMQP timestamp is an unsigned number of whole seconds; the exact one is in the body.
        seconds = int(event.timestamp)
        self.timestamp = seconds if 0 <= seconds < 2**63 else min(max(seconds, 0), 2**63 - 1)
        self.type = event.routing_key
        self.app_id = app_id

    def encode(self) -> list[bytes]:
        """As pika does it, which asks for all fourteen. AMQP 0-9-1, sections 4.2.3.1 and 4.2.6.1."""
        if self.headers is not None or self.app_id is not None or self.message_id is None or self.type is None:
            return super().encode()
        message_id, routing_key = self.message_id.encode(), self.type.encode()
        return [
            self._SAME_FOR_ALL,
            bytes((len(message_id),)),
            message_id,
            _UNSIGNED(self.timestamp),
            bytes((len(routing_key),)),
            routing_key,
        ]


class Received(Protocol):
    """What was received: of a delivery what is needed to read its event."""

    @property
    def is_plain(self) -> bool:
        """Whether it is known to be JSON without headers of ours; then its properties need not be decoded."""

    @property
    def properties(self) -> BasicProperties: ...

    @property
    def routing_key(self) -> str: ...

    @property
    def body(self) -> bytes: ...


def read_event(received: Received) -> DomainEvent:
    """The event in a delivery. Raises MalformedEvent with the reason."""
    body, retries = received.body, 0
    try:
        if not received.is_plain:
            retries = read_progress(received.routing_key, received.properties.headers).retries
            content_type = received.properties.content_type
            if isinstance(content_type, str) and content_type.partition(";")[0].strip().lower() == CLOUDEVENTS:
                return DomainEvent.from_cloudevent(
                    body, default_timestamp=_time_of(received.properties), retries=retries
                )

        def defaults() -> tuple[str | None, float | None]:
            return _id_of(received.properties), _time_of(received.properties)

        return read_body(DomainEvent, body, defaults, retries)
    except MalformedEvent as malformed:
        # Never unpacked: a few kilobytes could become gigabytes.
        encoding = str(received.properties.content_encoding).lower()
        if encoding in _COMPRESSIONS:
            raise MalformedEvent(f"the body is compressed ({encoding}); only plain JSON can be read") from None
        raise malformed


def known_id(properties: BasicProperties, body: bytes) -> str:
    """An id of the event without reading its body; ours are the same as that in the body."""
    return _id_of(properties) or id_from_hash(body)


def garbage_id(properties: BasicProperties, body: bytes) -> str:
    """An id of what is no event."""
    from hashlib import sha256  # a third of a MiB, for what hardly ever comes

    return _id_of(properties) or f"sha256:{sha256(body).hexdigest()[:16]}"


def read_progress(routing_key: str, headers: Mapping[str, Any] | None) -> Progress:
    """Nothing in the headers can make this fail: what is not of our making counts as not there."""
    if not headers:
        return Progress(routing_key)
    original = headers.get(ROUTING_KEY)
    retries = headers.get(RETRIES)
    first = headers.get(FIRST_FAILED_AT)
    return Progress(
        routing_key=original if _is_routing_key(original) else routing_key,
        retries=_read_retries(retries),
        first_failed_at=_read_seconds(first),
    )


def text_in(headers: Mapping[str, Any] | None, name: str) -> str | None:
    """A header that is a text; None: it is not there, or of another kind."""
    value = (headers or {}).get(name)
    return value if isinstance(value, str) else None


def seconds_in(headers: Mapping[str, Any] | None, name: str) -> float | None:
    """A header that is a moment as we write it, in Unix seconds."""
    return _read_seconds((headers or {}).get(name))


def retry_properties(
    properties: BasicProperties, progress: Progress, now: float, *, largest: int = LARGEST_HEADERS
) -> BasicProperties:
    """The properties of a retry copy: everything of the original, one retry more.

    `largest`: bytes that the broker takes in one header frame, of which LARGEST_HEADERS are used at most.
    """
    return _copied(
        properties,
        {
            ROUTING_KEY: progress.routing_key,
            RETRIES: progress.retries + 1,
            FIRST_FAILED_AT: _seconds(progress.first_failed_at or now),
        },
        largest,
    )


def dead_letter_properties(
    properties: BasicProperties,
    progress: Progress,
    failure: Failure,
    *,
    receiver: str,
    now: float,
    code_version: str | None = None,
    largest: int = LARGEST_HEADERS,
) -> BasicProperties:
    """The properties of a dead letter: everything of the original, and why it was given up. `largest`: as above."""
    notes: dict[str, Any] = {
        ROUTING_KEY: progress.routing_key,
        RETRIES: progress.retries,
        FIRST_FAILED_AT: _seconds(progress.first_failed_at or now),
        DEAD_AT: _seconds(now),
        RECEIVER: receiver,
        HOST: socket.gethostname(),
        PID: os.getpid(),
        REASON: one_line(failure.reason, LONGEST_REASON),
        ERROR_TYPE: None if failure.error_type is None else one_line(failure.error_type, LONGEST_TYPE),
        ERROR_MESSAGE: None if failure.error_message is None else shorten(failure.error_message, LONGEST_MESSAGE),
        TRACEBACK: None if failure.traceback is None else shorten(failure.traceback, LONGEST_TRACEBACK),
        CODE_VERSION: code_version,
    }
    return _copied(properties, {name: value for name, value in notes.items() if value is not None}, largest)


def replayed_properties(
    properties: BasicProperties, routing_key: str, replay: str, outcome_to: str | None
) -> BasicProperties:
    """The properties of a dead letter that goes back to its receiver: as it was before its first failure."""
    progress = read_progress(routing_key, properties.headers)
    notes = {ROUTING_KEY: progress.routing_key, REPLAY: replay}
    if outcome_to is not None:
        notes[OUTCOME_TO] = outcome_to
    return _copied(properties, notes, strip=_OF_A_DEAD_LETTER | {RETRIES, FIRST_FAILED_AT, OUTCOME_TO})


def moved_properties(properties: BasicProperties, routing_key: str) -> BasicProperties:
    """The properties of an event that goes on in another queue, no retry more: everything of the original."""
    progress = read_progress(routing_key, properties.headers)
    return _copied(properties, {ROUTING_KEY: progress.routing_key}, strip=frozenset())


def shorten(text: str, longest: int) -> str:
    """At most `longest` characters of `text`, from both ends. Its lines stay lines; all else is printable."""
    # Twice: escapes are longer than what they stand for, and a text of megabytes is not worth a walk through all of it.
    return _both_ends(printable(_both_ends(text, longest), keep="\n\t"), longest)


def _both_ends(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    gap = f"\n... {len(text) - longest} characters left out ...\n"
    kept = max(0, longest - len(gap))
    return text[: kept // 2] + gap + text[len(text) - (kept - kept // 2) :]


def _copied(
    properties: BasicProperties,
    notes: dict[str, Any],
    largest: int = LARGEST_HEADERS,
    *,
    strip: frozenset[str] = _OF_A_DEAD_LETTER,
) -> BasicProperties:
    """`notes`: headers of ours. `strip`: those that were put there by somebody else, and are not to be believed."""
    foreign = {
        name: value
        for name, value in (properties.headers or {}).items()
        if not _is_of_the_broker(name) and name not in notes and name not in strip
    }
    if not isinstance(foreign.get(HEADERS_LEFT_OUT, 0), int):  # nor is this our word
        del foreign[HEADERS_LEFT_OUT]
    copy = _Copied(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers={**foreign, **notes},
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        # Not expiration: an event with a time to live of its own would vanish from the retry queue or the dead letters.
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        # Not user_id: the broker compares it with our login and refuses the copy.
        app_id=properties.app_id,
        cluster_id=properties.cluster_id,
    )
    try:
        encoded = _encoded(copy)
    except _UNWRITABLE:
        foreign = {name: _writable(name, value) for name, value in foreign.items()}
        copy.headers = {**foreign, **notes}
        encoded = _encoded(copy)
    largest = min(largest, LARGEST_HEADERS)
    if len(encoded) > largest:
        _make_room(copy, foreign, notes, largest)
        encoded = _encoded(copy)
    copy.encoded = encoded
    return copy


class _Copied(BasicProperties):
    """Written once, to be measured, and sent as they were measured."""

    encoded: bytes | None = None
    """As they are; nobody changes them any more."""

    def encode(self) -> list[bytes]:
        return super().encode() if self.encoded is None else [self.encoded]


def _is_of_the_broker(name: str | bytes) -> bool:
    # pika leaves what is no UTF-8 as bytes.
    return isinstance(name, str) and (name in _BROKER_HEADERS or name.startswith(_BROKER_PREFIXES))


_UNWRITABLE = (struct.error, ArithmeticError, ValueError, exceptions.UnsupportedAMQPFieldException)


def _writable(name: str, value: Any) -> Any:
    """pika reads values that it cannot write again (large decimals); their text is better than nothing."""
    try:
        _size(BasicProperties(headers={name: value}))
    except _UNWRITABLE:
        return shorten(str(value), LONGEST_MESSAGE)
    return value


def _make_room(copy: BasicProperties, foreign: dict[str, Any], notes: dict[str, Any], most: int) -> None:
    """Cut the traceback, then leave out the largest foreign headers, then cut our words, until the header block fits.

    What is left then are names, which have bounds of their own: they fit into the smallest frame that there is.
    """
    if TRACEBACK in notes:
        notes[TRACEBACK] = shorten(notes[TRACEBACK], min(LONGEST_TRACEBACK // 4, most // 16))
    copy.headers = {**foreign, **notes}
    excess = _size(copy) - most
    if excess <= 0:
        return
    left_out = max(0, foreign.pop(HEADERS_LEFT_OUT, 0))
    excess += _size_of_header(HEADERS_LEFT_OUT, 2**31)
    # Once over all of them: there may be tens of thousands.
    sizes = {name: _size_of_header(name, value) for name, value in foreign.items()}
    for name in sorted(foreign, key=sizes.__getitem__, reverse=True):
        if excess <= 0:
            break
        del foreign[name]
        excess -= sizes[name]
        left_out += 1
    if excess > 0:
        notes.pop(TRACEBACK, None)
        for name in _WORDS & notes.keys():
            notes[name] = one_line(notes[name], most // 40)
    copy.headers = {**foreign, **notes}
    if left_out:
        copy.headers[HEADERS_LEFT_OUT] = min(left_out, 2**31)


def _size_of_header(name: str, value: Any) -> int:
    return _size(BasicProperties(headers={name: value})) - _size(BasicProperties(headers={}))


def _size(properties: BasicProperties) -> int:
    return len(_encoded(properties))


def _encoded(properties: BasicProperties) -> bytes:
    return b"".join(properties.encode())


def _seconds(moment: float) -> str:
    """Unix seconds as text: pika writes no floating point numbers into headers."""
    return f"{moment:.6f}"


def _is_routing_key(value: object) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    # What is no UTF-8 has come as escapes, each of four characters for one byte: see `Subscription`.
    return 0 < len(value.encode(errors="replace")) - 3 * value.count("\\x") <= LONGEST_KEY


def _read_retries(value: object) -> int:
    # Not `type(...) is int`: pika reads 64-bit numbers, which other clients write, as a class of its own.
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return int(min(value, _MOST_RETRIES))
    return 0


def _read_seconds(value: object) -> float | None:
    try:
        moment = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    return moment if 0 < moment <= _LATEST else None  # NaN neither


def _id_of(properties: BasicProperties) -> str | None:
    return properties.message_id if isinstance(properties.message_id, str) and properties.message_id else None


def _time_of(properties: BasicProperties) -> float | None:
    stamp = properties.timestamp
    return float(stamp) if isinstance(stamp, int) and stamp > 0 else None


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:  # noqa: BLE001 - the __str__ of an exception class that is not ours
        return f"(its __str__ raised {type(worse).__name__})"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as worse:  # noqa: BLE001 - formatting calls __str__ and source loaders that are not ours
        return f"(formatting it raised {type(worse).__name__})"
