"""What the nouns that change something share: ask, say what became of it."""

from __future__ import annotations

from domain_events.cli.operator.output import say
from domain_events.supervisor.control_client import ask
from domain_events.supervisor.protocol import Done, Failed, OperatorExit, Request

TIMEOUT = 10.0
"""Seconds that a master has to begin something."""


def give(path: str, request: Request, timeout: float | None, done: str) -> int:
    """The exit code. `done` is said when the master has no words of its own."""
    match ask(path, request, timeout):
        case Done(data=data):
            say(str(data.get("message") or done))
            return OperatorExit.DONE
        case Failed(message=message, code=code):
            say(message)
            return code
