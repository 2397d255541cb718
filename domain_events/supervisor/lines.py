"""The supervisor's own log lines: an event's name and its fields, as `key=value` in the message itself.

In the message, so that they survive whatever handlers and formatters an application has configured.
"""

from __future__ import annotations

import json
import logging
import re

Value = str | int | float | None

_PLAIN = re.compile(r"[^\s\"=]+")
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')
_NUMBERS = frozenset({"pid", "code", "n", "delay"})


def write(logger: logging.Logger, level: int, event: str, **fields: Value) -> None:
    """One line. A field that is None is left out."""
    logger.log(level, "%s", to_text(event, **fields))


def to_text(event: str, **fields: Value) -> str:
    pairs = [f"event={event}"]
    pairs += [f"{name}={_written(value)}" for name, value in fields.items() if value is not None]
    return " ".join(pairs)


def dropped(slot: str, n: int, pid: int | None) -> str:
    """Log records of a process are lost: a child's, or those of the master, whose slot is "master"."""
    receiver, _, _ = slot.rpartition("#")
    return to_text("log_records_dropped", receiver=receiver or None, slot=slot, pid=pid, n=n)


def fields_of(message: str) -> dict[str, Value]:
    """The fields of a line, "event" among them; empty when the message is no such line."""
    if not message.startswith("event="):
        return {}
    fields: dict[str, Value] = {}
    at = 0
    while at < len(message):
        pair = _PAIR.match(message, at)
        if pair is None:
            return {}  # words that begin like one of our lines
        name, text = pair.groups()
        fields[name] = _read(name, text)
        at = pair.end()
    return fields


def _written(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if not text.isprintable():
        return json.dumps(text)  # all but ASCII as escapes
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _read(name: str, text: str) -> Value:
    try:
        if text.startswith('"'):
            return str(json.loads(text))
        if name in _NUMBERS:
            return float(text) if "." in text else int(text)
    except ValueError:
        pass
    return text
