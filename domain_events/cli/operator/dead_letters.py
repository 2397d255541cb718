"""`domain-events dead-letters list|show|replay|discard`: what receivers have given up, why, and a second chance."""

from __future__ import annotations

import argparse
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from domain_events.cli.operator import letters
from domain_events.cli.operator.conditions import SYNTAX, all_hold, parse_condition
from domain_events.cli.operator.connecting import add_broker, add_management, broker_of, guarded, management
from domain_events.cli.operator.output import put, say
from domain_events.cli.operator.parsing import Parser, UsageError, moment
from domain_events.errors import BrokerError, InvalidName, NoSuchReceiver
from domain_events.showing import one_line, printable
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.transport.dead_letters.groups import Groups
    from domain_events.transport.dead_letters.queue import DeadLetterQueue
    from domain_events.transport.dead_letters.wanted import Wanted
    from domain_events.transport.dead_letters.working import Tally, Work

_EPILOG = """\
Looking takes nothing away, but while somebody looks, nobody else can: a second command waits for the first. `replay`
sends events back to this receiver alone, as they were before they failed; each leaves the dead letters when its copy is
confirmed: interrupted at any point, nothing is lost. With --canary the first event goes alone; the others follow when
it was handled, and everything stops when one of them fails for the same cause as before.
A fingerprint is the type of an error and the function of the application that raised it.
exit codes: 0 done, 1 some of it failed, or the canary has, 2 usage, 3 the broker cannot be reached,
            4 no such receiver or id

examples:
  domain-events dead-letters list
  domain-events dead-letters list printer
  domain-events dead-letters list printer --each --error-type ValueError --since 2h
  domain-events dead-letters list printer --json
  domain-events dead-letters show printer 1bb2d3e4-0000-4000-8000-5a6b7c8d9e0f
  domain-events dead-letters replay printer --fingerprint 3f9a01c2 --canary
  domain-events dead-letters replay printer --where data.user_id=7 --dry-run
  domain-events dead-letters replay printer --all --rate 50
  domain-events dead-letters discard printer --routing-key 'order.*' --since 2026-11-30T12:00:00Z --yes
"""

_CANARY_PATIENCE = 60.0  # seconds
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("dead-letters", help="list, show, replay and discard what was given up", epilog=_EPILOG)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    listing = _verb(verbs, "list", "show what there is, grouped by cause; takes nothing away", _list)
    listing.add_argument("receiver", metavar="NAME", nargs="?", help="of the receiver; left out: how many each one has")
    listing.add_argument("--json", action="store_true", help="each of them, for machines; the keys are a contract")
    listing.add_argument("--each", action="store_true", help="each of them on a line of its own")
    _add_filters(listing)
    add_management(listing)
    show = _verb(verbs, "show", "print one with its data and its traceback", _show)
    show.add_argument("receiver", metavar="NAME", help="of the receiver")
    show.add_argument("id", metavar="ID", help="of the event")
    show.add_argument("--json", action="store_true", help="for machines; the keys are a contract")
    replay = _verb(verbs, "replay", "send events to their receiver again", _replay)
    discard = _verb(verbs, "discard", "throw dead letters away, for good", _discard)
    for each in (replay, discard):
        each.add_argument("receiver", metavar="NAME", help="of the receiver")
        each.add_argument("--all", action="store_true", help="whatever they are")
        _add_filters(each)
        each.add_argument("--dry-run", action="store_true", help="only show which ones it would be")
        each.add_argument("--json", action="store_true", help="print the numbers as JSON")
    replay.add_argument("--rate", metavar="N", type=_rate, help="events per second, at most")
    replay.add_argument("--canary", action="store_true", help="one event first; the others when it was handled")
    replay.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=_CANARY_PATIENCE,
        help=f"seconds to wait for the outcome of an event, with --canary (default: {_CANARY_PATIENCE:g})",
    )
    discard.add_argument("--yes", action="store_true", help="needed: nobody can bring them back")


def _verb(verbs: Any, name: str, help: str, run: Callable[[argparse.Namespace], int]) -> Parser:  # noqa: A002
    parser: Parser = verbs.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=_EPILOG)
    add_broker(parser)
    parser.set_defaults(run=guarded(run))
    return parser


def _add_filters(parser: Parser) -> None:
    group = parser.add_argument_group("which ones: all that is given must be true")
    group.add_argument("--id", metavar="ID", action="extend", nargs="+", default=[], help="those with one of these ids")
    group.add_argument("--error-type", metavar="TYPE", help="as ValueError")
    group.add_argument("--fingerprint", metavar="HEX", help="as `list` shows it")
    group.add_argument("--routing-key", metavar="KEY", help="as order.placed, or with wildcards as a binding key")
    group.add_argument("--since", metavar="TIME", help="since 2h or 30m ago, or 2026-11-30T12:00:00Z, or Unix seconds")
    group.add_argument("--before", metavar="TIME", help="likewise")
    group.add_argument("--where", metavar="CONDITION", action="append", default=[], help=SYNTAX.replace("%", "%%"))


# Looking


def _list(arguments: argparse.Namespace) -> int:
    wanted = _wanted(arguments)
    if arguments.receiver is None:
        if not wanted.is_everything or arguments.json or arguments.each:
            raise UsageError("name the receiver whose dead letters are to be listed")
        return _count_all(arguments)
    # Nothing is printed while the letters are held: whoever reads may take his time.
    if arguments.json or arguments.each:
        with letters.Sorted() as found:
            with _opened(arguments) as queue:
                for letter in letters.looked_through(queue, wanted):
                    found.add(letter.summary)
            for line in found.json() if arguments.json else found.lines():
                put(line)
        return OperatorExit.DONE
    groups = _grouped(arguments, wanted)
    for line in letters.grouped(groups):
        put(line)
    if not groups.count:
        say(f"receiver {arguments.receiver} has no {'such ' if not wanted.is_everything else ''}dead letters")
    return OperatorExit.DONE


def _grouped(arguments: argparse.Namespace, wanted: Wanted) -> Groups:
    from domain_events.transport.dead_letters.groups import Groups

    groups = Groups()
    with _opened(arguments) as queue:
        for letter in letters.looked_through(queue, wanted):
            groups.add(letter)
    return groups


def _opened(arguments: argparse.Namespace) -> DeadLetterQueue:
    from domain_events.names import check_receiver_name
    from domain_events.transport.dead_letters.queue import DeadLetterQueue

    try:  # or a name that is too long for a queue would look like a lost connection
        check_receiver_name(arguments.receiver)
    except InvalidName as error:
        raise NoSuchReceiver(str(error)) from None
    return DeadLetterQueue(broker_of(arguments, "consumer"), arguments.receiver)


def _count_all(arguments: argparse.Namespace) -> int:
    from domain_events.transport.migration.management import ManagementUnavailable

    try:
        listing = management(arguments, broker_of(arguments, "consumer")).list()
    except ManagementUnavailable as error:
        say(f"{error}; it alone knows all queues. Or name a receiver: domain-events dead-letters list NAME")
        return OperatorExit.UNREACHABLE
    for line in letters.counts(listing.queues.values()):
        put(line)
    return OperatorExit.DONE


def _show(arguments: argparse.Namespace) -> int:
    from domain_events.transport.dead_letters.wanted import Wanted

    newest, others = None, 0
    with _opened(arguments) as queue:
        for letter in letters.looked_through(queue, Wanted(ids=frozenset({arguments.id}))):
            others += newest is not None
            if newest is None or (letter.dead_at or 0.0) >= (newest.dead_at or 0.0):
                newest = letter
    if newest is None:
        say(f"receiver {arguments.receiver} has no dead letter with the id {arguments.id!r}")
        return OperatorExit.UNKNOWN
    detail = newest.detail
    if arguments.json:
        put(json.dumps(detail, indent=2))
    else:
        put("\n".join(letters.described(detail, newest.fingerprint)))
    if others:
        say(f"{others + 1} dead letters have this id; the newest is shown")
    return OperatorExit.DONE


# Changing


def _replay(arguments: argparse.Namespace) -> int:
    canary = arguments.timeout if arguments.canary else None
    return _work(arguments, "replayed", lambda work: work.replay(rate=arguments.rate, canary=canary))


def _discard(arguments: argparse.Namespace) -> int:
    if not arguments.yes and not arguments.dry_run:
        raise UsageError("discard is for good: look at them with --dry-run, then give --yes")
    return _work(arguments, "discarded", lambda work: work.discard())


def _work(arguments: argparse.Namespace, did: str, do: Callable[[Work], Tally]) -> int:
    from domain_events.transport.dead_letters.working import Work

    wanted = _wanted(arguments)
    if arguments.all == (not wanted.is_everything):
        raise UsageError("say which ones: --all, or what they have in common, as --error-type ValueError")
    if arguments.dry_run:
        return _dry_run(arguments, wanted, did)
    stop = threading.Event()
    found: set[str] = set()
    with _opened(arguments) as queue, letters.progress(did, queue.count) as moved:
        letters.say_whether_locked(queue)
        work = Work(queue=queue, wanted=wanted, stop=stop, moved=moved, found=lambda letter: found.add(letter.id))
        if not arguments.id:
            work.found = lambda _letter: None  # there may be any number
        try:
            with _interrupts(stop):
                tally = do(work)
        except (BrokerError, KeyboardInterrupt):
            say(f"{work.tally.done} events were {did} until then; nothing is lost")
            raise
    # Of what it has not come to, nobody knows.
    missing = [] if tally.stopped else sorted(frozenset(arguments.id) - found)
    return _report(arguments, tally, did, missing)


def _dry_run(arguments: argparse.Namespace, wanted: Wanted, did: str) -> int:
    groups = _grouped(arguments, wanted)
    if arguments.json:
        put(json.dumps({did: 0, f"would_be_{did}": groups.count}))
    else:
        for line in letters.grouped(groups):
            put(line)
        say(f"{groups.count} events would be {did}")
    return OperatorExit.DONE


def _report(arguments: argparse.Namespace, tally: Tally, did: str, missing: list[str]) -> int:
    numbers = {did: tally.done, "came_back": tally.came_back, "newer": tally.newer}
    if did == "replayed" and arguments.canary:
        numbers |= {
            "handled": tally.handled,
            "retried": tally.retried,
            "dead_again": tally.dead_again,
            "unknown": tally.unknown,
        }
    if arguments.json:
        put(json.dumps({**numbers, "stopped": tally.stopped or None, "not_found": missing}))
    words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers.items() if number or name == did)
    say(f"receiver {arguments.receiver}: {words}")
    if tally.came_back:
        say(f"{tally.came_back} failed again meanwhile; `domain-events dead-letters list` tells why")
    if missing:
        say(f"there is no dead letter with the id {', '.join(printable(each) for each in missing[:5])}")
    if tally.stopped:
        say(f"stopped: {one_line(tally.stopped, 500)}; the others are still dead letters")
        return 128 + signal.SIGINT if tally.stopped == "interrupted" else OperatorExit.FAILED
    if missing:
        return OperatorExit.UNKNOWN
    return OperatorExit.FAILED if tally.dead_again or tally.unknown else OperatorExit.DONE


@contextmanager
def _interrupts(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C: what is begun is brought to its end. A second one does not wait for it."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# Arguments


def _wanted(arguments: argparse.Namespace) -> Wanted:
    from domain_events.names import check_binding_key
    from domain_events.transport.dead_letters.wanted import Wanted

    conditions = [parse_condition(text) for text in arguments.where]
    key: str | None = arguments.routing_key
    matches: Callable[[str], bool] | None = None
    if key is not None:
        from domain_events.transport.routing import matches as matching

        try:
            check_binding_key(key)
        except ValueError as error:
            raise UsageError(str(error)) from None
        matches = lambda routing_key: matching(key, routing_key)  # noqa: E731
    return Wanted(
        ids=frozenset(arguments.id) if arguments.id else None,
        error_type=arguments.error_type,
        fingerprint=arguments.fingerprint,
        routing_key=matches,
        since=None if arguments.since is None else _moment(arguments.since),
        before=None if arguments.before is None else _moment(arguments.before),
        conditions=(lambda fields: all_hold(conditions, fields),) if conditions else (),
    )


def _moment(text: str) -> float:
    """Unix seconds."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    return time.time() - float(ago[1]) * _UNITS[ago[2]] if ago else moment(text)


def _rate(text: str) -> float:
    rate = _number(text)
    if not 0 < rate <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of events per second above 0")
    return rate


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 < seconds < 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
