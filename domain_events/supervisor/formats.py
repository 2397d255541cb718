"""How a log line looks: words for people, or one JSON object per line; and what the journal wants of both."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from domain_events.showing import printable
from domain_events.supervisor.lines import fields_of
from domain_events.supervisor.records import STANDARD, message_of, plain, traceback_of

TEXT_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s %(message)s"
FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_JOURNAL_TEXT_FORMAT = TEXT_FORMAT.removeprefix("%(asctime)s ")  # the journal has its own time
_MADE_BY_US = STANDARD | {"message", "asctime", "taskName"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # sd-daemon(3)


class TextFormatter(logging.Formatter):
    """A record is one line that begins at the margin. Those that follow, as of a traceback, are indented: what somebody
    has sent us, and a message or an exception repeats, cannot look like a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(printable(line, keep="\t") for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """One object: time (ISO 8601, UTC), level, logger, process, message, exception, stack; the fields of the
    supervisor's own lines; and what a caller gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        message = message_of(record)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": message,
        }
        if record.name.startswith("domain_events."):
            line |= fields_of(message)
        for name, value in vars(record).items():
            if isinstance(name, str) and name not in _MADE_BY_US:
                line.setdefault(name, plain(value))
        if exception := traceback_of(record):
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _to_json(line)


class JournalFormatter(logging.Formatter):
    """Puts the priority in front of every line that `inner` makes, as in sd-daemon(3)."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        # The journal begins a new line at a NUL too, and what has no priority gets that of the unit.
        return "\n".join(f"<{priority}>{line}" for line in re.split(r"[\n\0]", self._inner.format(record)))


def configure(level: str, form: str) -> None:
    """The root logger writes to stderr in this form, and nowhere else."""
    is_journal = is_the_journal(2, os.environ)
    formatter: logging.Formatter
    if form == "json":
        formatter = JsonFormatter()
    else:
        formatter = TextFormatter(_JOURNAL_TEXT_FORMAT if is_journal else TEXT_FORMAT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(formatter) if is_journal else formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)


def is_the_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """systemd names the stream that it gave to the service (systemd.exec(5)): stderr may be another one by now."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _to_json(line: Mapping[str, object]) -> str:
    # Without ensure_ascii a lone surrogate could not be written to the stream.
    try:
        return json.dumps(line, allow_nan=False)
    except ValueError:  # NaN and infinities, which JSON does not have: as texts
        return json.dumps(json.loads(json.dumps(line), parse_constant=str))
