"""`domain-events restart NAME`: fresh processes for one receiver."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from domain_events.cli.operator import orders
from domain_events.cli.operator.parsing import Parser
from domain_events.supervisor.protocol import Restart

_EPILOG = """\
One after the other: each new one consumes before the old one drains. They run the code that the master has now;
`domain-events reload` brings in new code.
exit codes: 0 done, 1 it failed, 2 usage, 3 no master answers, 4 no such receiver

examples:
  domain-events restart printer
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("restart", help="replace the processes of a receiver by fresh ones", epilog=_EPILOG)
    parser.add_argument("receiver", metavar="NAME", help="of the receiver")
    orders.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    name: str = arguments.receiver
    return orders.give(arguments, Restart(name), f"{name} has been restarted")
