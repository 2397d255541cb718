"""Arguments that several nouns share, and how a parser of ours looks."""

from __future__ import annotations

import argparse
import math
import os
from datetime import datetime
from typing import Any

from domain_events.errors import DomainEventError
from domain_events.showing import one_line
from domain_events.supervisor.protocol import control_path


class UsageError(DomainEventError):
    """The arguments, or what stands for them in the environment, make no sense. Says what would."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and leaves the lines of its epilog as they are."""

    takes_any_order = False
    """Whether flags may stand between the other arguments. Not where nouns or verbs follow."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        self._is_parsing = False

    # argparse calls this of a noun's parser; and of itself, once for flags and once for the rest.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_parsing or not self.takes_any_order:
            return super().parse_known_args(args, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_parsing = False


def add_control(parser: Parser) -> None:
    """--control. To be read with `control`."""
    parser.add_argument(
        "--control",
        metavar="PATH",
        help="the master's socket (default: $DOMAIN_EVENTS_CONTROL, then $RUNTIME_DIRECTORY/control.sock)",
    )


def control(arguments: argparse.Namespace) -> str:
    """Where the master is. Raises UsageError when nothing tells."""
    path: str | None = arguments.control or control_path(os.environ)
    if path is None:
        raise UsageError("which master? Give the path of its socket, as --control PATH or in DOMAIN_EVENTS_CONTROL")
    return path


def moment(text: str) -> float:
    """Unix seconds, from a number of them or from a time as ISO 8601 writes it, with its zone. Raises UsageError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = _iso(text)
    if not math.isfinite(seconds):
        raise UsageError(f"the time {one_line(text, 60)!r} is no finite number of seconds")
    return seconds


def _iso(text: str) -> float:
    try:
        time = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        raise UsageError(
            f"the time {one_line(text, 60)!r} is neither Unix seconds nor ISO 8601, as 2026-11-30T12:45:00Z"
        ) from None
    if time.utcoffset() is None:
        raise UsageError(f"the time {one_line(text, 60)!r} has no zone: add Z for UTC, or +01:00")
    try:
        return time.timestamp()
    except OverflowError:  # in the year 1, east of Greenwich
        raise UsageError(f"the time {one_line(text, 60)!r} is out of range") from None


def positive_seconds(text: str) -> float:
    # Only here, for it comes with much of the supervisor, and the command shall start fast.
    from domain_events.supervisor.options import positive

    try:
        return positive(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
