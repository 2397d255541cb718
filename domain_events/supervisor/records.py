"""A log record as plain values: what a child sends, and what the master makes of it. Pure."""

from __future__ import annotations

import json
import logging
import sys
from types import FrameType
from typing import Any

TEXT_LIMIT = 64 * 1024  # characters of a message, a traceback or a stack
_VALUE_LIMIT = 4 * 1024  # characters of anything else
_NESTED_LIMIT = 16 * 1024  # characters of a dict or list, as JSON

_NOT_SENT = frozenset({"args", "asctime", "exc_info", "message"})  # gone into the texts, or made by formatters
STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None)))
"""Attributes that every record has; the others are what a caller gave as `extra`."""

_DEPTH_LIMIT = 8  # of log calls that are made while a log call asks an object for its text


def to_values(record: logging.LogRecord) -> dict[str, Any]:
    """All that the record says, message and traceback as texts. It survives whatever a caller has logged.

    What JSON can hold, dicts and lists too, stays as it is; anything else becomes a text. Texts are shortened.
    """
    values = {
        name: plain(value)
        for name, value in vars(record).copy().items()
        if isinstance(name, str) and name not in _NOT_SENT
    }
    values["name"] = str(values["name"])  # None in what makeLogRecord made
    # An object whose text logs the object itself would never come to an end.
    values["msg"] = shortened(message_of(record) if _depth() < _DEPTH_LIMIT else _unformatted(record), TEXT_LIMIT)
    values["exc_text"] = traceback_of(record)
    values["stack_info"] = shortened(text_of(record.stack_info), TEXT_LIMIT) if record.stack_info else None
    return values


def _depth() -> int:
    """How many records are being formatted below this one, for the sake of another.

    Counted on the stack: a signal handler that raises in a log call could keep a counter from going down again.
    """
    depth = -1  # `to_values` has called us
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        depth += frame.f_code is to_values.__code__
        frame = frame.f_back
    return depth


def from_values(values: Any) -> logging.LogRecord:
    """The record that `to_values` was given, or a ValueError."""
    match values:
        case {"name": str(name), "levelno": int(level), "msg": str(message), "created": int() | float()}:
            # Not makeLogRecord: it would call the user's record factory, which the child has called already.
            record = logging.LogRecord(name, level, "", 0, message, None, None)
            vars(record).update(values)
            return record
        case _:
            raise ValueError("this is no log record")


def shortened(text: str, limit: int) -> str:
    """`text` with at most `limit` characters of it: its beginning and its end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters left out ...] {text[-half:]}"


def message_of(record: logging.LogRecord) -> str:
    try:
        return str.__str__(record.getMessage())
    except Exception as error:  # noqa: BLE001  foreign code: what was logged formats itself; arguments may not fit
        arguments = f" with arguments {_repr(record.args)}" if record.args else ""
        return f"{_repr(record.msg)}{arguments} (not formatted: {type(error).__name__})"


def _unformatted(record: logging.LogRecord) -> str:
    message = str.__str__(record.msg) if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"
    return f"{message} (not formatted: logged {_DEPTH_LIMIT} times over by what it logs)"


def traceback_of(record: logging.LogRecord) -> str | None:
    if record.exc_text:  # another handler has formatted it
        return shortened(text_of(record.exc_text), TEXT_LIMIT)
    if not record.exc_info:
        return None
    try:
        text = logging.Formatter().formatException(record.exc_info)
    except Exception as error:  # noqa: BLE001  foreign code: an exception's own methods
        text = f"{_repr(record.exc_info)} (traceback not formatted: {type(error).__name__})"
    return shortened(text, TEXT_LIMIT)


def plain(value: object) -> Any:
    kind = type(value)
    if kind is str:
        return shortened(value, _VALUE_LIMIT)  # type: ignore[arg-type]
    if value is None or kind is float or kind is bool:
        return value
    match value:
        case int() if -(2**63) <= value < 2**64:  # longer ones may have more digits than str() and int() accept
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case dict() | list() | tuple():
            return _nested(value)
        case _:
            return shortened(text_of(value), _VALUE_LIMIT)


def _nested(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
    try:
        text = json.dumps(value, default=text_of)
        if len(text) <= _NESTED_LIMIT:
            return json.loads(text)
    except Exception:  # noqa: BLE001  foreign code: keys of other types, circles, a subclass with its own ideas
        text = text_of(value)
    return shortened(text, _VALUE_LIMIT)


def text_of(value: object) -> str:
    try:
        return str.__str__(str(value))
    except Exception as error:  # noqa: BLE001  foreign code: somebody's __str__
        return f"<{type(value).__name__}, whose str() raised {type(error).__name__}>"


def _repr(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception as error:  # noqa: BLE001  foreign code: somebody's __repr__
        return f"<{type(value).__name__}, whose repr() raised {type(error).__name__}>"
