"""`domain-events NOUN ...`: the parser, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from domain_events.cli.operator import (
    dead_letters,
    explain,
    metrics,
    reload,
    restart,
    scale,
    send,
    status,
    topology,
    watch,
)
from domain_events.cli.operator.output import OutputFailed, flush, say, tolerate_any_text
from domain_events.cli.operator.parsing import Parser, UsageError
from domain_events.supervisor.control_client import MasterUnreachable
from domain_events.supervisor.protocol import OperatorExit
from domain_events.version import __version__

_DESCRIPTION = "Look after receivers: those of a running domain-events-supervisor, and their queues."

_EPILOG = """\
exit codes: 0 done, 1 some of it failed, 2 usage, 3 no master or no broker answers,
            4 no such receiver or id

examples:
  domain-events status
  domain-events status --json --control /run/shop/control.sock
  domain-events restart printer
  domain-events scale printer=4
  domain-events reload --wait
  domain-events dead-letters list printer
  domain-events topology plan app.receivers
  domain-events explain user.disabled app.receivers
  domain-events send user.disabled '{"user_id": 1}'
  domain-events watch 'user.#'
"""


class Noun(Protocol):
    """What a module here has to have. What needs much, it imports in `add` or later: the command starts fast."""

    def add(self, add_parser: Callable[..., Parser]) -> None:
        """Adds its parser, with a default `run`: from the parsed arguments to an OperatorExit."""


NOUNS: Sequence[Noun] = (
    status,
    metrics,
    restart,
    scale,
    reload,
    dead_letters,
    topology,
    explain,
    send,
    watch,
)


def main(argv: Sequence[str] | None = None) -> int:
    tolerate_any_text()
    parser = _parser()
    try:
        try:
            arguments = parser.parse_args(argv)
        except SystemExit:  # --help has been printed, but is not out yet
            flush()
            raise
        return int(arguments.run(arguments))
    except UsageError as error:
        parser.error(str(error))
    except MasterUnreachable as error:
        say(str(error))
        return OperatorExit.UNREACHABLE
    except OutputFailed as error:
        say(str(error))
        return OperatorExit.FAILED
    except KeyboardInterrupt:
        return 128 + 2


def _parser() -> Parser:
    parser = Parser(prog="domain-events", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    nouns = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    def add_parser(name: str, help: str, epilog: str) -> Parser:  # noqa: A002
        return nouns.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)

    for noun in NOUNS:
        noun.add(add_parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
