"""`domain-events watch`: what is being sent, live."""

from __future__ import annotations

import argparse
import contextlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from domain_events.cli.operator import connecting
from domain_events.cli.operator.conditions import SYNTAX, all_hold, parse_condition
from domain_events.cli.operator.output import put, say, somebody_reads, terminal_width
from domain_events.cli.operator.parsing import Parser, UsageError, positive_seconds
from domain_events.errors import InvalidName, MalformedEvent
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.cli.operator.tail import Seen
    from domain_events.transport.watching import Arrived, Lost, Watching

_LOOK = 0.5
"""Seconds between two looks whether somebody still reads."""

_MOST_UNDONE = 100
"""Events that are shown before the broker is told so."""

_EPILOG = """\
It looks at copies, through a temporary queue of its own: nobody misses anything, and events from before are not seen.
BINDING_KEY is as in a receiver: * is one word, # any number of them; the default is #. Times are local. A line is cut
to the terminal's width; nothing is cut in a pipe. After an outage of the broker it goes on by itself, and tells for how
long nothing was seen. When more events come than can be shown, the broker drops the oldest ones of those that wait for
this command (10 000, or 64 MiB), and no others: that is told, but not how many.
exit codes: 0 done (--count, --timeout, Ctrl-C, or nobody reads any more), 1 fewer than --count came, or the broker
            refused, 2 usage, 3 the broker cannot be reached

examples:
  domain-events watch
  domain-events watch 'user.#' order.placed
  domain-events watch 'user.*' --where data.user_id=7 --full
  domain-events watch '#.failed' --grep 'timeout|refused' --json | jq .data
  domain-events watch order.placed --count 1 --timeout 60 >/dev/null && echo somebody ordered
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("watch", help="show events as they are sent; takes none away", epilog=_EPILOG)
    parser.takes_any_order = True
    parser.add_argument(
        "binding_keys", metavar="BINDING_KEY", nargs="*", default=[], help="as 'user.#' (default: #, all of them)"
    )
    parser.add_argument("--exchange", metavar="NAME", help="default: domain-events")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object a line; the keys are a contract")
    shape.add_argument("--full", action="store_true", help="all of the data, on lines of its own")
    parser.add_argument("--grep", metavar="REGEX", type=_regex, help="only where key, ids or data (as JSON) match this")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        type=parse_condition,
        action="append",
        default=[],
        help=f"only where this is true: {SYNTAX}".replace("%", "%%"),
    )
    parser.add_argument("--count", metavar="N", type=_count, help="end when so many have been shown")
    parser.add_argument("--timeout", metavar="S", type=positive_seconds, help="end after so many seconds")
    connecting.add_broker(parser)
    parser.set_defaults(run=connecting.guarded(_run))


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    from domain_events.names import check_binding_key, check_exchange_name
    from domain_events.sending import EXCHANGE
    from domain_events.transport.watching import Watching

    keys = arguments.binding_keys or ["#"]
    exchange = arguments.exchange or EXCHANGE
    try:
        for key in keys:
            check_binding_key(key)
        check_exchange_name(exchange)
    except InvalidName as error:
        raise UsageError(str(error)) from error
    brokers = connecting.broker_of(arguments, "consumer")
    what = f"{', '.join(keys)} on exchange {exchange} at {', '.join(map(str, brokers))}"
    with Watching(brokers, exchange, keys, may_declare=arguments.exchange is None) as watching:
        tail = _Tail(arguments, watching, what)
        with contextlib.suppress(KeyboardInterrupt):
            tail.run()
        if arguments.count is not None and tail.shown < arguments.count:
            say(f"{tail.shown} of {arguments.count} came")
            return OperatorExit.FAILED
        return OperatorExit.DONE


class _Tail:
    def __init__(self, arguments: argparse.Namespace, watching: Watching, what: str) -> None:
        self._arguments = arguments
        self._watching = watching
        self._what = what
        self._undone = 0
        self._lost: str | None = None
        """What was said about the present outage."""
        self.shown = 0

    def run(self) -> None:
        """Until the end that was asked for, or nobody reads any more. Raises BrokerError."""
        from domain_events.transport.watching import Arrived, Blind, Dropped, Failed, Listening, Lost

        seconds: float | None = self._arguments.timeout
        end = None if seconds is None else time.monotonic() + seconds
        while somebody_reads():
            wait = _LOOK if end is None else min(_LOOK, end - time.monotonic())
            if wait <= 0:
                return
            match self._watching.next(wait):
                case Arrived() as arrived:
                    self._show(arrived)
                    if self.shown == self._arguments.count:
                        return
                case Listening(missed=missed):
                    self._listening(missed)
                case Lost() as lost:
                    self._on_lost(lost)
                case Dropped():
                    say("more comes than can be shown: the broker has dropped some of the copies that it made for us")
                case Blind():
                    say("this login may not have a second queue: when events are dropped, it will not be known")
                case Failed(error=error):
                    raise error

    def _show(self, arrived: Arrived) -> None:
        from domain_events.cli.operator.tail import as_json, as_line, in_full

        seen = _seen(arrived)
        a = self._arguments
        if (a.grep is None or a.grep.search(seen.text)) and all_hold(a.where, seen.fields):
            if a.json:
                put(as_json(seen))
            else:
                put("\n".join(in_full(seen)) if a.full else as_line(seen, terminal_width()))
            self.shown += 1
        # Not for each: the broker is told at once only when nothing else is there to be shown.
        self._undone += 1
        if self._undone >= _MOST_UNDONE or not self._watching.has_more:
            self._watching.done(arrived)
            self._undone = 0

    def _listening(self, missed: float | None) -> None:
        self._lost = None
        if missed is None:
            say(f"listening to {self._what}; Ctrl-C ends it")
        else:
            say(f"listening again; what was sent in the {missed:.1f} s before was not seen")

    def _on_lost(self, lost: Lost) -> None:
        said = str(lost.error)
        if said != self._lost:
            self._lost = said
            say(f"nothing is seen, as the broker is away: {said}; trying again")


def _seen(arrived: Arrived) -> Seen:
    from domain_events.cli.operator.tail import Seen

    event, problem = None, None
    try:
        event = arrived.event()
    except MalformedEvent as error:
        problem = str(error)
    return Seen(routing_key=arrived.routing_key, at=arrived.at, event=event, problem=problem, body=arrived.body)
