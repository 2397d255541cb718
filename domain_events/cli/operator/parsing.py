"""Arguments that several nouns share, and how a parser of ours looks."""

from __future__ import annotations

import argparse
import os
from typing import Any

from domain_events.errors import DomainEventError
from domain_events.supervisor.protocol import control_path


class UsageError(DomainEventError):
    """The arguments, or what stands for them in the environment, make no sense. Says what would."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and leaves the lines of its epilog as they are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)


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
