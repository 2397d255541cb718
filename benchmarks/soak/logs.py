"""What the logs of our own processes say: errors by kind, and tracebacks that should not be there. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

OF_HANDLERS = "domain_events.settling"
"""Logs the traceback of a handler that has failed, as it should."""
TRACEBACK = "Traceback (most recent call last)"


@dataclass(slots=True)
class Findings:
    errors: Counter[str] = field(default_factory=Counter)
    """By logger and message, without numbers and ids."""
    tracebacks: list[str] = field(default_factory=list)


def search(lines: Iterable[str]) -> Findings:
    """In the lines of one process and its children, in JSON. What is no JSON was written past the log."""
    found = Findings()
    raw: list[str] = []
    for line in lines:
        record = _record(line)
        if record is None:
            raw.append(line)
            continue
        if record["level"] in ("ERROR", "CRITICAL"):
            found.errors[f"{record['logger']}: {kind_of(str(record['message']))}"] += 1
        text = f"{record['logger']}: {record['message']}\n{record.get('exception')}"
        if "exception" in record and record["logger"] != OF_HANDLERS and "domain_events" in text:
            found.tracebacks.append(text)
    text = "\n".join(raw)
    if TRACEBACK in text:
        found.tracebacks.append(text[text.index(TRACEBACK) :][:4000])
    return found


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"level", "logger", "message"} <= record.keys() else None


def kind_of(message: str) -> str:
    """The first line, without numbers and ids."""
    message = re.sub(r"\b[a-z]+(\.\d+)+-\d+", "ID", message.partition("\n")[0])
    return re.sub(r"\d+(\.\d+)?", "N", message)[:200]
