"""What the nouns that change something share: how long they wait, and what became of it."""

from __future__ import annotations

import argparse

from domain_events.cli.operator.output import say
from domain_events.cli.operator.parsing import Parser, add_control, control
from domain_events.supervisor.control_client import NoAnswer, ask
from domain_events.supervisor.protocol import Done, Failed, OperatorExit, Request

PATIENCE = 300.0
"""Seconds for what is answered when it has happened: new children have to boot, old ones to finish their events."""


def add_arguments(parser: Parser, default: str = f"{PATIENCE:g}") -> None:
    """--timeout and --control."""
    parser.add_argument(
        "--timeout", metavar="S", type=_seconds, help=f"for the answer; 0: no limit (default: {default})"
    )
    add_control(parser)


def give(arguments: argparse.Namespace, request: Request, done: str, patience: float = PATIENCE) -> int:
    """The exit code. `done` is said when the master has no words of its own. `patience`: seconds, without --timeout."""
    timeout: float = patience if arguments.timeout is None else arguments.timeout
    try:
        reply = ask(control(arguments), request, timeout or None)
    except NoAnswer as error:
        say(f"{error}; what it has begun goes on")
        return OperatorExit.UNREACHABLE
    match reply:
        case Done(data=data):
            say(str(data.get("message") or done))
            return OperatorExit.DONE
        case Failed(message=message, code=code):
            say(message)
            return code


def _seconds(text: str) -> float:
    # Only here, for it comes with much of the supervisor, and the command shall start fast.
    from domain_events.supervisor.options import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
