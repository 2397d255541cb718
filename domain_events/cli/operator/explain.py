"""`domain-events explain`: who gets an event, by the code and by what is bound at the broker."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from domain_events.cli.operator import connecting
from domain_events.cli.operator.output import put, say
from domain_events.cli.operator.parsing import Parser, UsageError
from domain_events.errors import BrokerError, ConnectionFailed, InvalidName
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.cli.operator.explanation import Answer
    from domain_events.registration import Registration
    from domain_events.settings import Brokers
    from domain_events.transport.migration.management import Listing

_EPILOG = """\
The modules are those of domain-events-supervisor (default: $DOMAIN_EVENTS_MODULES); without any, only what is bound at
the broker is shown. Bindings are known to RabbitMQ's management plugin only: without it, receivers are told by the
code, and the broker is asked for their queues and consumers. Nothing is changed, and no event is sent.
exit codes: 0 done, 1 the broker refused to be asked (with --exit-code: nobody gets it, or code and broker differ),
            2 usage or configuration, 3 the broker cannot be reached

examples:
  domain-events explain user.disabled app.receivers
  domain-events explain user.disabled app.receivers --management http://localhost:15672
  domain-events explain user.disabled --json --broker-file /etc/domain-events/shop.broker
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("explain", help="show who gets an event with this routing key, and why", epilog=_EPILOG)
    parser.takes_any_order = True
    parser.add_argument("routing_key", metavar="ROUTING_KEY", help="as user.disabled")
    connecting.add_modules(parser)
    parser.add_argument("--exchange", metavar="NAME", help="that it is sent to (default: all that the receivers use)")
    parser.add_argument("--json", action="store_true", help="for machines; the keys are a contract")
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 1 when nobody gets it, or code and broker differ"
    )
    connecting.add_broker(parser)
    connecting.add_management(parser)
    parser.set_defaults(run=connecting.guarded(_run))


def _run(arguments: argparse.Namespace) -> int:
    from domain_events.cli.operator.explanation import as_json, lines
    from domain_events.names import check_exchange_name, check_routing_key
    from domain_events.transport.routing import suggestions

    try:
        routing_key = check_routing_key(arguments.routing_key)
        if arguments.exchange is not None:
            check_exchange_name(arguments.exchange)
    except InvalidName as error:
        raise UsageError(str(error)) from error
    answer = _ask(arguments, routing_key)
    meant = [] if answer.is_asked_for else suggestions(routing_key, answer.keys)
    if arguments.json:
        put(json.dumps(as_json(routing_key, answer, meant), indent=2))
    else:
        put("\n".join(lines(routing_key, answer, meant)))
        for note in answer.notes:
            say(note)
    if answer.problems:
        unreachable = any(isinstance(problem, ConnectionFailed) for problem in answer.problems)
        return OperatorExit.UNREACHABLE if unreachable else OperatorExit.FAILED
    wrong = not answer.reached or any(way.differs for way in answer.ways)
    return OperatorExit.FAILED if wrong and arguments.exit_code else OperatorExit.DONE


def _ask(arguments: argparse.Namespace, routing_key: str) -> Answer:
    from domain_events.cli.operator.explanation import Answer
    from domain_events.sending import EXCHANGE
    from domain_events.transport.explaining import look, ways

    answer = Answer()
    groups = _groups(arguments, answer)
    # Those of the code first: of very many, only the first ones are looked at for what may have been meant.
    answer.keys.extend(key for group in groups.values() for each in group for key in each.binding_keys)
    for brokers, registrations in groups.items():
        exchanges = {registration.exchange for registration in registrations} or {EXCHANGE}
        if arguments.exchange is not None:
            exchanges = {arguments.exchange}
        broker = ", ".join(map(str, brokers))
        listing = _listing(arguments, brokers, broker, answer, of_several=len(groups) > 1)
        found = ways(routing_key, registrations, exchanges, listing, {})
        try:
            places = look(brokers, found.queues) if found.queues else {}
        except BrokerError as error:
            answer.problems.append(error)
            answer.notes.append(f"{broker} could not be asked for its queues: {error}")
        else:
            found = ways(routing_key, registrations, exchanges, listing, places)
        answer.found.append((broker, found))
        if listing is not None:
            answer.keys.extend(each.key for each in listing.bindings if each.exchange in exchanges)
    return answer


def _groups(arguments: argparse.Namespace, answer: Answer) -> dict[Brokers, list[Registration]]:
    if not connecting.modules(arguments):
        answer.notes.append("no modules are given: only what is bound at the broker is shown")
        return {connecting.broker_of(arguments, "consumer"): []}
    registrations = connecting.registrations(arguments)
    groups = connecting.by_broker(registrations)
    online = {registration.name for group in groups.values() for registration in group}
    offline = [registration.name for registration in registrations if registration.name not in online]
    if offline:
        answer.notes.append(f"offline, and so without any event: {', '.join(offline)}")
    return groups


def _listing(
    arguments: argparse.Namespace, brokers: Brokers, broker: str, answer: Answer, *, of_several: bool
) -> Listing | None:
    from domain_events.transport.migration.management import ManagementUnavailable

    try:
        return connecting.management(arguments, brokers, of_several=of_several).list()
    except ManagementUnavailable as error:
        if not connecting.modules(arguments):
            answer.problems.append(BrokerError(str(error)))
        answer.notes.append(
            f"what is bound at {broker} could not be listed, so receivers are told by the code alone, and queues of "
            f"other services are not seen: {error}; see --management"
        )
        return None
