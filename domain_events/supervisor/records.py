"""A log record as plain values: what a child sends, and what the master makes of it. Pure."""

from __future__ import annotations

import json
import logging

FRAME_LIMIT = 4 * 1024 * 1024
"""Bytes of an encoded record. The texts of a record fit in at their limits with every character escaped."""

_TEXT_LIMIT = 64 * 1024  # characters of a message, a traceback or a stack
_VALUE_LIMIT = 4 * 1024  # characters of anything else

_NOT_SENT = frozenset({"args", "asctime", "exc_info", "message"})  # gone into the texts, or made by formatters
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None)))

_Plain = str | int | float | bool | None


def to_bytes(record: logging.LogRecord) -> bytes:
    """The record as JSON, with message and traceback as texts. It survives whatever a caller has logged.

    JSON and not pickle: reading it can only give plain values, never run code, and it carries lone surrogates
    (as escapes), which UTF-8 would refuse.
    """
    values: dict[str, _Plain] = {
        name: _plain(value)
        for name, value in vars(record).copy().items()
        if isinstance(name, str) and name not in _NOT_SENT
    }
    values["name"] = str(values["name"])  # None in what makeLogRecord made
    values["msg"] = shortened(_message(record), _TEXT_LIMIT)
    values["exc_text"] = _traceback(record)
    values["stack_info"] = shortened(record.stack_info, _TEXT_LIMIT) if record.stack_info else None
    frame = json.dumps(values).encode("ascii")
    if len(frame) > FRAME_LIMIT:  # hundreds of long extra fields
        values = {name: value for name, value in values.items() if name in _STANDARD}
        frame = json.dumps(values).encode("ascii")
    return frame


def from_bytes(frame: bytes) -> logging.LogRecord:
    """The record that `to_bytes` was given, or a ValueError."""
    values = json.loads(frame)
    match values:
        case {"name": str(name), "levelno": int(level), "msg": str(message), "created": int() | float()}:
            # Not makeLogRecord: it would call the user's record factory, which the child has called already.
            record = logging.LogRecord(name, level, "", 0, message, None, None)
            record.__dict__.update(values)
            return record
        case _:
            raise ValueError("this is no log record")


def shortened(text: str, limit: int) -> str:
    """`text` with at most `limit` characters of it: its beginning and its end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters left out ...] {text[-half:]}"


def _message(record: logging.LogRecord) -> str:
    try:
        return str.__str__(record.getMessage())
    except Exception as error:  # noqa: BLE001  foreign code: what was logged formats itself; arguments may not fit
        arguments = f" with arguments {_repr(record.args)}" if record.args else ""
        return f"{_repr(record.msg)}{arguments} (not formatted: {type(error).__name__})"


def _traceback(record: logging.LogRecord) -> str | None:
    if record.exc_text:  # another handler has formatted it
        return shortened(record.exc_text, _TEXT_LIMIT)
    if not record.exc_info:
        return None
    try:
        text = logging.Formatter().formatException(record.exc_info)
    except Exception as error:  # noqa: BLE001  foreign code: an exception's own methods
        text = f"{_repr(record.exc_info)} (traceback not formatted: {type(error).__name__})"
    return shortened(text, _TEXT_LIMIT)


def _plain(value: object) -> _Plain:
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**64:  # longer ones may have more digits than str() and int() accept
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case str():
            return shortened(str.__str__(value), _VALUE_LIMIT)
        case _:
            return shortened(_repr(value), _VALUE_LIMIT)


def _repr(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception as error:  # noqa: BLE001  foreign code: somebody's __repr__
        return f"<{type(value).__name__}, whose repr() raised {type(error).__name__}>"
