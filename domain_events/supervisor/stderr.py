"""The stderr of a child: fresh text streams after the fork, and lines that go straight to the descriptor."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import select
import sys
import tempfile
import time
from typing import TextIO

from domain_events.supervisor.sinks import loggers_with_handlers

_STDERR = 2
_PATIENCE = 0.5  # seconds that a line may wait for a stderr that nobody empties

_inherited_streams: list[object] = []  # kept, for their finalizers would write the parent's text, or wait for a lock


class StderrHandler(logging.Handler):
    """Writes to descriptor 2: no buffer and no lock that a fork, a kill or a signal could leave half done.

    Waits half a second when nobody reads it, but not for every record: those that follow do not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._patience = _PATIENCE

    def handle(self, record: logging.LogRecord) -> bool:
        """True when it was written."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  foreign code: the formatter that somebody has configured
            text = f"{record.levelname} {record.name} {record.msg}"
        is_written = write_stderr(text.encode("utf-8", "backslashreplace") + b"\n", self._patience)
        self._patience = _PATIENCE if is_written else 0.0
        return is_written


def write_stderr(line: bytes, patience: float) -> bool:
    """True when all was written; False after `patience` seconds without room, or when there is no stderr."""
    deadline = time.monotonic() + patience
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    rest = memoryview(line)
    while rest:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return False
        try:
            # A pipe that is ready takes so much without waiting, and in one piece.
            written = os.write(_STDERR, rest[: select.PIPE_BUF])
        except BlockingIOError:  # somebody made it non-blocking, and there is little room
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        except OSError:
            return False
        else:
            rest = rest[written:]
    return True


def write_stacks() -> None:
    """The stacks of all threads. Not straight to stderr: C code would wait for a reader, and everybody else for it."""
    try:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read()
    except OSError as error:  # a full disk, no descriptor left
        stacks = f"no stacks: {error}\n".encode()
    write_stderr(stacks, _PATIENCE)


def flush_unless_full(stream: TextIO | None) -> None:
    """Flush, but do not wait for a pipe that nobody empties, nor for a thread that waits for it."""
    if stream is None:
        return
    if isinstance(stream, io.TextIOWrapper):
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        if not poll.poll(0):
            return
    stream.flush()


def renew_stdio() -> None:
    """New objects for sys.stdout and sys.stderr: old ones may be locked, or hold text of the parent.

    Line-buffered, because a child ends without flushing. What is no text stream over a descriptor stays.
    """
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        if not isinstance(old, io.TextIOWrapper):
            continue
        try:
            raw = io.FileIO(old.fileno(), "w", closefd=False)
        except (OSError, ValueError):  # closed
            continue
        new = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding,
            errors=old.errors,
            newline="\n",
            line_buffering=True,
        )
        _inherited_streams.append(old)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
        _redirect_handlers(new)


def _redirect_handlers(new: io.TextIOWrapper) -> None:
    """Handlers that have no sink in the master stay with the child and write by themselves."""
    for logger in loggers_with_handlers():
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and _descriptor(handler.stream) == new.fileno():
                handler.stream = new  # not setStream(): it would flush the old one


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno() if isinstance(stream, io.TextIOWrapper) else None
    except (OSError, ValueError):  # closed
        return None
