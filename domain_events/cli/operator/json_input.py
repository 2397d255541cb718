"""JSON that a person or a program has written: read strictly, and what is wrong with it is told with its place."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Never

from domain_events.cli.operator.parsing import UsageError

LONGEST_LINE = 128 * 1024 * 1024
"""Bytes. RabbitMQ takes no larger event, unless it is told to."""

SLICE = 1000
"""Events whose confirms are waited for together: when something goes wrong, so many are in doubt."""

_QUOTING = "in a shell: domain-events send user.disabled '{\"user_id\": 1}'; a text: '\"text\"'"
_READ = 256 * 1024  # bytes at a time


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Iterator[list[tuple[int, Any]]]]:
    """The data of the events that `domain-events send` sends, each with the number of its line, in slices.

    Raises UsageError for arguments that make no sense, before anything is read; the slices do for what is no JSON.
    """
    a = arguments
    if a.file is not None and a.data is not None:
        raise UsageError("give either DATA or --file")
    if a.lines and a.data not in (None, "-"):
        raise UsageError("--lines reads stdin, or the file that --file names: leave DATA out")
    if a.lines and a.id is not None:
        raise UsageError("--id is for one event: with --lines each has one of its own")
    if a.file is None and a.data is None and not a.lines:
        raise UsageError("give the data as JSON (null, when there is none), or --file, or --lines")
    if a.file is None and a.data not in (None, "-"):
        yield iter([[(1, _read_data(os.fsencode(a.data), "DATA"))]])
        return
    if a.file not in (None, "-"):
        try:
            descriptor = os.open(a.file, os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise UsageError(f"the file {a.file} cannot be read: {getattr(error, 'strerror', error)}") from error
        try:
            yield _slices(descriptor, a.file, a.lines)
        finally:
            os.close(descriptor)
    elif sys.stdin is None:
        raise UsageError("stdin is closed")
    else:
        yield _slices(sys.stdin.fileno(), "stdin", a.lines)


def read_json(written: bytes, source: str, line: int | None = None) -> Any:
    """Raises UsageError. `source`: for its message. `line`: of the source, counted from 1, where there are several."""
    at = "" if line is None else f" (line {line})"
    try:
        text = written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8{at}: byte {error.start + 1}") from None
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        at = f" (line {error.lineno if line is None else line}, column {error.colno})"
        problem = error.msg
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:  # also a number of too many digits for Python
        problem = str(error).partition(":")[0]
    # Not the text itself: it may be nothing for a terminal, or a log.
    raise UsageError(f"{source} is no JSON{at}: {problem}")


def read_lines(descriptor: int, source: str) -> Iterator[list[tuple[int, bytes]]]:
    """The lines of a file or pipe with their numbers, from 1, without blank ones: those together that have come by now.

    Raises UsageError when one is too long, OSError when it cannot be read.
    """
    number = 0
    rest: list[bytes] = []  # the beginning of a line
    size = 0
    while read := os.read(descriptor, _READ):
        head, *others = read.split(b"\n")
        rest.append(head)
        size += len(head)
        if size > LONGEST_LINE:
            raise UsageError(f"{source}, line {number + 1} has more than {LONGEST_LINE} bytes")
        if not others:
            continue
        lines = [b"".join(rest), *others[:-1]]
        rest = [others[-1]]
        size = len(others[-1])
        found = [(number + n, line) for n, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)
        if found:
            yield found
    last = b"".join(rest)
    if last.strip():
        yield [(number + 1, last)]


def _slices(descriptor: int, source: str, lines: bool) -> Iterator[list[tuple[int, Any]]]:
    try:
        if not lines:
            written = b"".join(iter(lambda: os.read(descriptor, 65536), b""))
            yield [(1, _read_data(written, source))]
            return
        for found in read_lines(descriptor, source):
            for begin in range(0, len(found), SLICE):
                # A line that is no JSON does not hold back those before it.
                data: list[tuple[int, Any]] = []
                for number, line in found[begin : begin + SLICE]:
                    try:
                        data.append((number, _read_data(line, source, number)))
                    except UsageError:
                        if data:
                            yield data
                        raise
                yield data
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error


def _read_data(written: bytes, source: str, line: int | None = None) -> Any:
    try:
        return read_json(written, source, line)
    except UsageError as error:
        raise UsageError(f"{error}" if line is not None else f"{error}; {_QUOTING}") from None


def _refuse(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
