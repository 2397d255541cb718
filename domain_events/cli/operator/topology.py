"""`domain-events topology show|plan|apply`: what the receivers need at the broker, what differs, and its cure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from domain_events.cli.operator.connecting import (
    add_broker,
    add_management,
    add_modules,
    by_broker,
    guarded,
    management,
    registrations,
)
from domain_events.cli.operator.output import put, say
from domain_events.cli.operator.parsing import Parser, UsageError
from domain_events.errors import BrokerError, ConnectionFailed, NoSuchReceiver
from domain_events.showing import printable
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.transport.migration.planning import Difference

_EPILOG = """\
The modules are those of domain-events-supervisor (default: $DOMAIN_EVENTS_MODULES). `plan` changes nothing. `apply`
makes queues with other arguments anew: their receivers must stand still (domain-events scale NAME=0), what is sent
meanwhile is kept, events may come twice and in another order; a retry that falls due then may be minutes late.
Bindings and queues that the code has not got any more are known to RabbitMQ's management plugin only.
exit codes: 0 done, 1 some of it failed (of plan --exit-code: something differs), 2 usage or configuration,
            3 the broker cannot be reached, 4 no such receiver

examples:
  domain-events topology show app.receivers
  domain-events topology plan app.receivers --management http://localhost:15672
  domain-events topology apply app.receivers
  domain-events topology apply app.receivers --rename printer=badge-printer
  domain-events topology apply app.receivers --prune printer
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("topology", help="show, compare and change queues and bindings", epilog=_EPILOG)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    show = _verb(verbs, "show", "print what the receivers need; asks no broker", _show)
    show.add_argument("--json", action="store_true", help="for machines; the keys are a contract")
    plan = _verb(verbs, "plan", "print what is not at the broker as the code wants it; changes nothing", _plan)
    plan.add_argument("--json", action="store_true", help="for machines; the keys are a contract")
    plan.add_argument("--exit-code", action="store_true", help="exit with 1 when something differs")
    apply = _verb(verbs, "apply", "declare, bind, unbind and migrate, without losing an event", _apply)
    apply.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="the receiver OLD is called NEW now: its events, retries and dead letters become those of NEW",
    )
    apply.add_argument(
        "--prune",
        metavar="NAME",
        action="append",
        default=[],
        help="delete the queues of a receiver that is gone for good, if they are empty",
    )
    add_management(plan)
    add_management(apply)


def _verb(verbs: Any, name: str, help: str, run: Callable[[argparse.Namespace], int]) -> Parser:  # noqa: A002
    parser: Parser = verbs.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=_EPILOG)
    add_modules(parser)
    add_broker(parser)
    parser.set_defaults(run=guarded(run))
    return parser


def _show(arguments: argparse.Namespace) -> int:
    from domain_events.transport.topology import EXCHANGE_TYPE, dead_letter_queue, main_queue

    receivers = []
    for registration in registrations(arguments):
        queues = [main_queue(registration)]
        if registration.dead_letter:
            queues.append(dead_letter_queue(registration.name))
        receivers.append(
            {
                "name": registration.name,
                "exchange": {"name": registration.exchange, "type": EXCHANGE_TYPE, "durable": True},
                "binding_keys": list(registration.binding_keys),
                "queues": [
                    {"name": queue.name, "durable": True, "arguments": dict(queue.arguments)} for queue in queues
                ],
            }
        )
    put(json.dumps(receivers, indent=2) if arguments.json else "\n".join(_described(receivers)))
    return OperatorExit.DONE


def _described(receivers: Sequence[dict[str, Any]]) -> Iterator[str]:
    for receiver in receivers:
        yield f"receiver {printable(receiver['name'])}"
        yield f"  exchange {receiver['exchange']['name']}: topic, durable"
        for queue in receiver["queues"]:
            yield f"  queue {queue['name']}: durable"
            yield from (f"    {name}: {value!r}" for name, value in sorted(queue["arguments"].items()))
        yield from (f"  bound to {printable(key)}" for key in receiver["binding_keys"])


def _plan(arguments: argparse.Namespace) -> int:
    from domain_events.transport.migration.management import ManagementUnavailable
    from domain_events.transport.migration.work import plan

    found: list[Difference] = []
    notes: list[str] = []
    groups = by_broker(registrations(arguments))
    for brokers, group in groups.items():
        listing = None
        try:
            listing = management(arguments, brokers, of_several=len(groups) > 1).list()
        except ManagementUnavailable as error:
            notes.append(f"stale bindings and orphaned queues were not looked for: {error}; see --management")
        found += plan(brokers, group, listing)
    if arguments.json:
        differences = [{**asdict(difference), "remedy": _remedy(difference)} for difference in found]
        put(json.dumps({"differences": differences, "notes": notes}, indent=2))
    else:
        for difference in found:
            put(f"{printable(_sentence(difference))}\n    {printable(_remedy(difference))}")
        if not found:
            put("everything is as the code wants it")
        for note in notes:
            say(note)
    return OperatorExit.FAILED if found and arguments.exit_code else OperatorExit.DONE


def _apply(arguments: argparse.Namespace) -> int:
    from domain_events.transport.migration.management import ManagementUnavailable
    from domain_events.transport.migration.work import Changes

    renames = dict(_rename(text) for text in arguments.rename)
    groups = by_broker(registrations(arguments))
    ours = {registration.name: registration for group in groups.values() for registration in group}
    for old, new in renames.items():
        if new not in ours:
            say(f"--rename {old}={new}: there is no receiver {new!r} in these modules")
            return OperatorExit.UNKNOWN
    for name in [*renames, *arguments.prune]:
        if name in ours:
            raise UsageError(f"receiver {name!r} is in these modules: it cannot be renamed or pruned")
    result = OperatorExit.DONE
    for brokers, group in groups.items():
        done: list[str] = []

        def said(line: str, done: list[str] = done) -> None:
            done.append(line)
            put(printable(line))

        try:
            changes = Changes(brokers, management(arguments, brokers, of_several=len(groups) > 1), said)
        except ManagementUnavailable as error:
            say(f"stale bindings stay, and nothing is deleted: {error}; see --management")
            changes = Changes(brokers, None, said)
        steps: list[Callable[[], None]] = [partial(changes.apply, registration) for registration in group]
        steps += [partial(changes.rename, old, ours[new]) for old, new in renames.items() if ours[new] in group]
        steps += [*(partial(changes.prune, name) for name in arguments.prune), changes.finish]
        for step in steps:
            try:
                step()
            except ConnectionFailed:
                raise
            except NoSuchReceiver as error:
                say(str(error))
                result = OperatorExit.UNKNOWN
            except (BrokerError, ManagementUnavailable) as error:
                say(str(error))
                result = OperatorExit.FAILED
        if not done and result is OperatorExit.DONE:
            put("nothing to do")
    return result


def _rename(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (equals and old and new and old != new):
        raise UsageError(f"--rename {text!r} must be OLD=NEW, as printer=badge-printer")
    return old, new


def _sentence(difference: Difference) -> str:
    from domain_events.transport.migration.planning import Kind

    d = difference
    match d.kind:
        case Kind.EXCHANGE:
            return f"exchange {d.exchange} of receiver {d.receiver} cannot be used: {d.detail}"
        case Kind.MISSING if d.key is not None:
            return f"queue {d.queue} is not bound to {d.key}"
        case Kind.MISSING:
            return f"there is no {f'queue {d.queue}' if d.queue else f'exchange {d.exchange}'} yet"
        case Kind.ARGUMENTS:
            return f"queue {d.queue} has {d.argument} {d.there}, the code wants {d.wanted}; {_events(d.events)} in it"
        case Kind.UNFINISHED:
            return f"queue {d.queue} is being made anew; {_events(d.events)} in {d.detail}"
        case Kind.STALE_BINDING:
            return f"queue {d.queue} is still bound to {d.key}, which receiver {d.receiver} does not ask for"
        case Kind.UNUSED_RETRY_QUEUE:
            return f"retry queue {d.queue} is empty and receiver {d.receiver} stands still"
    return f"queue {d.queue} belongs to no receiver of these modules, and nobody consumes; {_events(d.events)} in it"


def _remedy(difference: Difference) -> str:
    from domain_events.transport.migration.planning import Kind

    d = difference
    match d.kind:
        case Kind.EXCHANGE:
            return "by hand: use another exchange, or delete this one when nobody uses it any more"
        case Kind.MISSING:
            return "apply declares it; so does the receiver when it starts" if d.key is None else "apply binds it"
        case Kind.ARGUMENTS if d.consumers:
            return f"apply makes it anew; before, stop the receiver: domain-events scale {d.receiver}=0"
        case Kind.ARGUMENTS:
            return "apply makes it anew"
        case Kind.UNFINISHED:
            return "apply finishes it"
        case Kind.STALE_BINDING:
            return "apply unbinds it"
        case Kind.UNUSED_RETRY_QUEUE:
            return "apply deletes it"
    return (
        f"another service's, standing still: leave it. Renamed: apply --rename {d.receiver}=NEW. "
        f"Gone for good: apply --prune {d.receiver}"
    )


def _events(count: int | None) -> str:
    return "an unknown number of events" if count is None else f"{count} event{'' if count == 1 else 's'}"
