"""`domain-events scale NAME=N`: more or fewer processes for one receiver."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from domain_events.cli.operator import orders
from domain_events.cli.operator.parsing import Parser
from domain_events.supervisor.protocol import MOST_PROCESSES, Scale

_EPILOG = """\
It holds until the master ends; for good it is `--processes`, or `processes=` in the code. With 0 the receiver stops,
and its queue keeps what comes.
exit codes: 0 done, 1 it failed, 2 usage, 3 no master answers, 4 no such receiver

examples:
  domain-events scale printer=4
  domain-events scale printer=0
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("scale", help="change how many processes a receiver has", epilog=_EPILOG)
    parser.add_argument("scale", metavar="NAME=N", type=_scale, help=f"N from 0 to {MOST_PROCESSES}")
    orders.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    scale: Scale = arguments.scale
    processes = f"{scale.processes} process{'' if scale.processes == 1 else 'es'}"
    return orders.give(arguments, scale, f"{scale.receiver} has {processes} now")


def _scale(text: str) -> Scale:
    name, equals, number = text.rpartition("=")
    if not (equals and name and number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=N, as printer=4")
    if len(number) > 9 or int(number) > MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text!r}: N must be from 0 to {MOST_PROCESSES}")
    return Scale(name, int(number))
