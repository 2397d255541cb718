"""`domain-events metrics`: the numbers of a master, as Prometheus reads them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from domain_events.cli.operator.output import put, say
from domain_events.cli.operator.parsing import Parser, add_control, control
from domain_events.supervisor.control_client import MasterUnreachable, ask
from domain_events.supervisor.protocol import Failed, Metrics, OperatorExit

if TYPE_CHECKING:
    from domain_events.supervisor.metering import MetricsReport

_TIMEOUT = 10.0  # seconds

_EPILOG = """\
For the textfile collector of node_exporter, and for a look. Without the depths of queues: the master has no broker.
Needs prometheus_client: pip install 'domain-events[metrics]'.
exit codes: 0 done, 1 prometheus_client is missing, 2 usage, 3 no master answers

examples:
  domain-events metrics
  domain-events metrics --control /run/shop/control.sock > shop.prom.new && mv shop.prom.new shop.prom
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("metrics", help="show the numbers of all receivers, as Prometheus reads them", epilog=_EPILOG)
    add_control(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        from domain_events.metrics import exposition
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        say(str(error))
        return OperatorExit.FAILED
    path = control(arguments)
    reply = ask(path, Metrics(), _TIMEOUT)
    if isinstance(reply, Failed):
        say(reply.message)
        return reply.code
    try:
        text, _ = exposition(cast("MetricsReport", reply.data))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MasterUnreachable(f"what answers at {path} is no master of this version: {error!r}") from error
    put(text.decode().rstrip("\n"))
    return OperatorExit.DONE
