"""`domain-events status`: how the receivers do."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from domain_events.cli.operator.output import has_colours, put, say, terminal_width
from domain_events.cli.operator.parsing import Parser, add_control, control
from domain_events.cli.operator.table import Column, Paint, table
from domain_events.showing import printable
from domain_events.supervisor.control_client import MasterUnreachable, ask
from domain_events.supervisor.protocol import Failed, OperatorExit, Status

if TYPE_CHECKING:
    from domain_events.supervisor.reporting import LastExitReport, ProcessReport, ReceiverReport, StatusReport

_TIMEOUT = 10.0  # seconds

_EPILOG = """\
CRASH counts restarts after a crash; IN FLIGHT is the id of the event in hand; LAST EXIT is the receiver's latest.
exit codes: 0 all receivers consume, 1 some do not, 2 usage, 3 no master answers

examples:
  domain-events status
  domain-events status --control /run/shop/control.sock
  domain-events status --json
"""

_COLUMNS = (
    Column(title="RECEIVER", least=12),
    Column(title="STATE"),
    Column(title="PID", right=True),
    Column(title="UP", right=True),
    Column(title="HANDLED", right=True),
    Column(title="RETRY", right=True),
    Column(title="DEAD", right=True),
    Column(title="CRASH", right=True),
    Column(title="IN FLIGHT", least=9),
    Column(title="LAST EXIT"),
)

_COLOURS = {"consuming": 32, "starting": 33, "draining": 33, "backoff": 31, "failed": 31}


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("status", help="show how the receivers do", epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="for machines; the keys are a contract")
    add_control(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    path = control(arguments)
    reply = ask(path, Status(), _TIMEOUT)
    if isinstance(reply, Failed):
        say(reply.message)
        return reply.code
    report = cast("StatusReport", reply.data)
    try:
        code = OperatorExit.DONE if _consuming(report) == len(report["receivers"]) else OperatorExit.FAILED
        text = json.dumps(report, indent=2) if arguments.json else "\n".join(_lines(report, time.time()))
    except (KeyError, TypeError, AttributeError) as error:
        raise MasterUnreachable(f"what answers at {path} is no master of this version: {error!r}") from error
    put(text)
    return code


def _consuming(report: StatusReport) -> int:
    return sum(receiver["state"] == "consuming" for receiver in report["receivers"])


def _lines(report: StatusReport, now: float) -> Iterator[str]:
    """`now` in Unix seconds."""
    master, receivers = report["master"], report["receivers"]
    yield (
        f"master {master['pid']} {printable(master['state'])}, up {_duration(master['uptime'])}: "
        f"{_consuming(report)} of {len(receivers)} receivers consume"
    )
    width = terminal_width()
    rows = [row for receiver in receivers for row in _rows(receiver, now, width is None)]
    paint: Paint = _painted if has_colours(os.environ) else lambda title, cell: cell
    yield from table(_COLUMNS, rows, width, paint)


def _painted(title: str, cell: str) -> str:
    colour = _COLOURS.get(cell.strip()) if title == "STATE" else None
    return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell


def _rows(receiver: ReceiverReport, now: float, whole: bool) -> Iterator[list[str]]:
    """One for each process. `whole`: nothing is cut."""
    last = _last_exit(receiver["last_exit"], now)
    if not receiver["processes"]:
        yield [printable(receiver["name"]), printable(receiver["state"]), *["-"] * 7, last]
    for process in receiver["processes"]:
        # The slot's number only where it tells something.
        name = receiver["name"] if len(receiver["processes"]) == 1 else process["slot"]
        event = _event(process["in_flight"], whole)
        yield [printable(name), printable(process["state"]), *_numbers(process), event, last]
        last = ""  # it is the receiver's


def _numbers(process: ProcessReport) -> list[str]:
    return [
        "-" if process["pid"] is None else str(process["pid"]),
        "-" if process["uptime"] is None else _duration(process["uptime"]),
        *(_count(process[key]) for key in ("handled", "retried", "dead_lettered", "restarts")),
    ]


def _event(identifier: str | None, whole: bool) -> str:
    if identifier is None:
        return "-"
    return printable(identifier) if whole or len(identifier) <= 9 else f"{printable(identifier[:8])}…"


def _last_exit(last: LastExitReport | None, now: float) -> str:
    if last is None:
        return "-"
    ending = last["signal"] or ("unknown" if last["code"] is None else f"exit {last['code']}")
    return f"{printable(str(ending))} {_duration(max(0.0, now - last['at']))}"


def _duration(seconds: float) -> str:
    """As `45s`, `12m`, `5h`, `3d`: two digits, mostly."""
    for unit, size, below in (("s", 1, 100), ("m", 60, 6000), ("h", 3600, 172800)):
        if seconds < below:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def _count(number: int) -> str:
    """At most six characters."""
    if number < 100_000:
        return str(number)
    for unit, size in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if number < 1000 * size:
            return f"{number / size:.1f}{unit}" if number < 100 * size else f"{number // size}{unit}"
    return f"{number:.1e}"
