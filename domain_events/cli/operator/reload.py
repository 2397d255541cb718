"""`domain-events reload`: new code, without a gap."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from domain_events.cli.operator import orders
from domain_events.cli.operator.parsing import Parser
from domain_events.supervisor.protocol import Reload

_BEGIN = 10.0  # seconds

_EPILOG = """\
The new code is tried first; when it is broken, everything stays as it is. Then one receiver after the other is taken
over. Without --wait it ends when the reload has begun; with it, its exit code says how it went.
exit codes: 0 done, 1 the reload failed and the old code runs, 2 usage, 3 no master answers (in time;
            the reload goes on)

examples:
  domain-events reload
  domain-events reload --wait
  domain-events reload --wait --timeout 900
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("reload", help="bring in new code, receiver by receiver", epilog=_EPILOG)
    parser.add_argument("--wait", action="store_true", help="until all receivers run it, or it has failed")
    orders.add_arguments(parser, f"{_BEGIN:g}, with --wait {orders.PATIENCE:g}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    wait: bool = arguments.wait
    done = "the new code runs" if wait else "the reload has begun; the log and `domain-events status` tell how it goes"
    return orders.give(arguments, Reload(wait), done, orders.PATIENCE if wait else _BEGIN)
