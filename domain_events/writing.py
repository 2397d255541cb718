"""What an event's `data` may hold, and how it is written as JSON."""

from __future__ import annotations

import dataclasses
import json.encoder
import math
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from domain_events.errors import UnsendableData
from domain_events.nesting import DEEPEST, nests_too_deeply


def write_event(routing_key: str, data: Any, domain_object_id: str | None, uuid_string: str, timestamp: float) -> bytes:
    """The body of an event: compact JSON in UTF-8. Raises UnsendableData, which names what cannot be written and where.

    Besides JSON's own, `data` may hold datetime, date and time (ISO 8601), UUID and Decimal (strings), Enum (its value)
    and dataclasses (objects). Keys may be what the json module takes: str, int, float, bool and None.
    """
    try:
        text = _event(_utf8, routing_key, data, domain_object_id, uuid_string, timestamp)
    except (TypeError, ValueError, RecursionError) as error:
        # Only now look for the place: a walk through everything costs more than the encoding.
        raise UnsendableData(_find_culprit({"data": data}, error)) from error
    try:
        written = text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; as an escape it is legal JSON and survives the way.
        written = _event(_ascii, routing_key, data, domain_object_id, uuid_string, timestamp).encode()
    if len(written) > DEEPEST and nests_too_deeply(written):
        raise UnsendableData(f"data: it is nested too deeply, more than {DEEPEST} levels")
    return written


def _event(
    write: _Writer, routing_key: str, data: Any, domain_object_id: str | None, uuid_string: str, timestamp: float
) -> str:
    object_id = "null" if domain_object_id is None else write.string(domain_object_id)
    return (
        f'{{"routing_key":{write.string(routing_key)},"data":{write.value(data)},'
        f'"domain_object_id":{object_id},"uuid_string":{write.string(uuid_string)},"timestamp":{timestamp!r}}}'
    )


def _plain(value: object) -> object:
    """What stands in JSON for a value that json cannot write itself. Raises TypeError when nothing does."""
    match value:
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case Enum():
            return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not asdict(): it copies deeply, which costs, and fails where something cannot be copied.
        try:
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        except AttributeError as error:
            raise TypeError(f"{_type_name(value)} has an unset field") from error
    raise TypeError(f"{_type_name(value)} cannot be written as JSON")


class _Writer(NamedTuple):
    """How strings and other values become JSON."""

    string: Callable[[str], str]
    value: Callable[[object], str]


def _writer(escape: Callable[[str], str], *, ensure_ascii: bool) -> _Writer:
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # no CPython
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=_plain, check_circular=False
        )
        return _Writer(escape, encoder.encode)
    # JSONEncoder.encode makes this anew for each call, which costs as much as writing a small event. Without markers of
    # what is being written: threads would share them, and what contains itself meets the limit of recursion.
    encode = make(None, _plain, escape, None, ":", ",", False, False, False)
    return _Writer(escape, lambda value: "".join(encode(value, 0)))


_utf8 = _writer(json.encoder.encode_basestring, ensure_ascii=False)
_ascii = _writer(json.encoder.encode_basestring_ascii, ensure_ascii=True)


def _find_culprit(body: dict[str, Any], error: Exception) -> str:
    """What made the encoder fail with `error`. A loop, not a recursion: the nesting may be the culprit."""
    levels = [_children(body)]
    steps: list[str] = []  # one for each level below the first
    opened = [id(body)]  # what each level is the inside of
    inside = set(opened)
    while levels:
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            inside.discard(opened.pop())
            del steps[-1:]
            continue
        step, value = child
        try:
            inner = _container(value)
            if inner is not None and id(value) in inside:
                raise ValueError("it contains itself, which JSON cannot")
        except (TypeError, ValueError) as problem:
            return f"{_path([*steps, step])}: {problem}"
        if inner is not None:
            levels.append(_children(inner))
            opened.append(id(value))
            inside.add(id(value))
            steps.append(step)
    if isinstance(error, RecursionError):
        return f"data: it is nested too deeply, more than {DEEPEST} levels"
    return f"data: it cannot be written as JSON ({type(error).__name__})"


def _container(value: object) -> dict[Any, Any] | list[Any] | tuple[Any, ...] | None:
    """`value` as something with children; None for a leaf. TypeError or ValueError where JSON ends."""
    match value:
        case None | str():
            return None
        case int() | float():
            _check_number(value)
            return None
        case list() | tuple():
            return value
        case dict():
            for key in value:
                if isinstance(key, (int, float)):
                    _check_number(key)
                elif not (key is None or isinstance(key, str)):
                    raise TypeError(f"a key of type {_type_name(key)} cannot be written as JSON")
            return value
    return _container(_plain(value))


def _check_number(number: int | float) -> None:
    if isinstance(number, float):
        if not math.isfinite(number):
            raise ValueError(f"{float(number)} cannot be written as JSON")
        return
    try:
        int.__repr__(number)
    except ValueError:  # see sys.set_int_max_str_digits
        raise ValueError("an integer of so many digits cannot be written as JSON") from None


def _children(container: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, object]]:
    if isinstance(container, dict):
        for key, value in container.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.60}]"), value
    else:
        for index, value in enumerate(container):
            yield f"[{index}]", value


def _path(steps: list[str]) -> str:
    if len(steps) > 20:
        steps = [*steps[:10], "...", *steps[-10:]]
    return "".join(steps).removeprefix(".")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
