"""The parts of a received body, checked: what is wrong with one is a MalformedEvent.

Its reason tells a person what is wrong and never repeats the payload.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Never
from uuid import UUID

from domain_events.errors import MalformedEvent
from domain_events.names import LONGEST_KEY
from domain_events.nesting import DEEPEST, nests_too_deeply

MOST_DIGITS = 4300
"""Of an integer: Python's own limit, which a program can lift. The time that more take grows with their square."""

LONGEST_ID = 255
"""UTF-8 bytes. The id travels as the AMQP property `message_id`, a short string."""


def read_object(body: bytes | str) -> dict[str, Any]:
    try:
        return _read_object(body)
    except MemoryError:
        # For this process: others may have more. It is not worse off among the dead letters than in a crash.
        raise MalformedEvent("reading the body takes more memory than there is") from None


def _read_object(body: bytes | str) -> dict[str, Any]:
    try:
        text = body if isinstance(body, str) else str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEvent(f"the body is not UTF-8 (at byte {error.start})") from None
    size = len(text)
    # Most bodies are too small for either.
    if size > DEEPEST and nests_too_deeply(_raw(body)):
        raise MalformedEvent(f"the body is nested too deeply, more than {DEEPEST} levels")
    try:
        content = (_decode if size <= MOST_DIGITS or _has_digit_limit() else _decode_counting)(text)
    except json.JSONDecodeError as error:
        raise MalformedEvent(f"the body is not JSON: {error.msg} (at character {error.pos})") from None
    except RecursionError:  # the stack is nearly used up already
        raise MalformedEvent("the body is nested too deeply") from None
    except _NotFinite as error:
        raise MalformedEvent(str(error)) from None
    except ValueError:  # see sys.set_int_max_str_digits
        raise MalformedEvent("the body holds an integer of too many digits") from None
    if not isinstance(content, dict):
        raise MalformedEvent(f"the body is {_kind(content)}, not an object")
    return content


def _raw(body: bytes | str) -> bytes:
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body


class _NotFinite(ValueError):
    pass


def _refuse_constant(name: str) -> Never:
    raise _NotFinite(f"the body holds {name}, which is not JSON")


def _finite(text: str) -> float:
    # 1e999 is legal JSON and would become an infinity that could never be sent on.
    value = float(text)
    if value - value:  # not a number, for infinities
        raise _NotFinite("the body holds a number that is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError
    return int(text)


def _decoder(**options: Any) -> Callable[[str], Any]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, **options)
    scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]

    def decode(text: str) -> Any:
        # `decoder.decode` looks for white space before and after, which nearly nobody writes, with regular expressions.
        try:
            content, end = scan(text, 0)
        except StopIteration:  # it is no JSON, or does not begin at once: the other way says more
            end = -1
        if end == len(text):
            return content
        return decoder.decode(text.removeprefix("\ufeff"))

    return decode


_decode = _decoder()
_decode_counting = _decoder(parse_int=_integer)
"""Three times as slow with integers."""


def _has_digit_limit() -> bool:
    return 0 < sys.get_int_max_str_digits() <= MOST_DIGITS


def read_routing_key(name: str, value: object) -> str:
    if value is None:
        raise MalformedEvent(f"the body has no {name}")
    if not isinstance(value, str):
        raise MalformedEvent(f"{name} is {_kind(value)}, not a string")
    if not value:
        raise MalformedEvent(f"{name} is empty")
    if not value.isprintable():  # lone surrogates neither
        raise MalformedEvent(f"{name} holds a control character")
    if len(value) > LONGEST_KEY or (not value.isascii() and len(value.encode()) > LONGEST_KEY):
        raise MalformedEvent(f"{name} is longer than {LONGEST_KEY} bytes")
    return value


def read_object_id(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise MalformedEvent(f"{name} is {_kind(value)}, not a string or a number")


def read_id(name: str, value: object) -> str:
    if type(value) is str and value.isascii() and 0 < len(value) <= LONGEST_ID:
        return value
    if not isinstance(value, str):
        raise MalformedEvent(f"{name} is {_kind(value)}, not a string")
    problem = problem_of_id(value)
    if problem:
        raise MalformedEvent(f"{name} {problem}")
    return value


def problem_of_id(value: str) -> str | None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    if 0 < size <= LONGEST_ID:
        return None
    return f"has {size} bytes; it must have 1 to {LONGEST_ID}"


def id_from_hash(body: bytes | str) -> str:
    import hashlib  # with it comes a third of a MiB, for the few whose events have no id

    number = int.from_bytes(hashlib.sha256(_raw(body)).digest()[:16])
    # Version 8, "custom", and the variant: RFC 9562, sections 4 and 5.8.
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0b11 << 62) | 0b10 << 62
    return str(UUID(int=number))


def read_timestamp(value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedEvent(f"timestamp is {_kind(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise MalformedEvent("timestamp is too large") from None


def read_rfc3339(value: object) -> float:
    if not isinstance(value, str):
        raise MalformedEvent(f"time is {_kind(value)}, not a string")
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise MalformedEvent("time is not a time as RFC 3339 writes it") from None
    if moment.utcoffset() is None:
        raise MalformedEvent("time has no offset from UTC")
    return moment.timestamp()


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"
