"""What the nouns share that read the application's modules, or go to the broker themselves."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from domain_events.cli.operator.output import say
from domain_events.cli.operator.parsing import Parser, UsageError
from domain_events.errors import BrokerError, ConfigurationError, ConnectionFailed, NoSuchReceiver
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.registration import Registration
    from domain_events.settings import Broker, Brokers, ConnectionSettings, Role
    from domain_events.transport.migration.management import Management

# Imported where they are used: the commands that need none of this shall start fast.


def add_modules(parser: Parser) -> None:
    parser.add_argument(
        "modules", nargs="*", default=[], metavar="MODULE", help="with global Receivers, as app.receivers"
    )


def add_broker(parser: Parser) -> None:
    """--broker and --broker-file."""
    parser.add_argument("--broker", metavar="URL[,URL]", help="in place of the configured one")
    parser.add_argument("--broker-file", metavar="FILE", help="holds the URL of the broker")


def add_management(parser: Parser) -> None:
    parser.add_argument(
        "--management",
        metavar="URL",
        help="of RabbitMQ's management plugin (default: $DOMAIN_EVENTS_MANAGEMENT, then port 15672 of the broker)",
    )


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`run`, with the exit code of what goes wrong at the broker."""

    def guard(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except ConnectionFailed as error:
            say(str(error))
            return OperatorExit.UNREACHABLE
        except NoSuchReceiver as error:
            say(str(error))
            return OperatorExit.UNKNOWN
        except ConfigurationError as error:
            say(str(error))
            return OperatorExit.USAGE
        except BrokerError as error:
            say(str(error))
            return OperatorExit.FAILED

    return guard


def modules(arguments: argparse.Namespace) -> Sequence[str]:
    """Those that are given, else those of the environment; there may be none."""
    from domain_events.supervisor.arguments import read_modules

    return read_modules(vars(arguments), os.environ)


def registrations(arguments: argparse.Namespace) -> Sequence[Registration]:
    """Of the modules; from now on the broker is that of the arguments. Raises ConfigurationError or UsageError."""
    from domain_events.cli.application import load
    from domain_events.supervisor.brokers import check_brokers, use_broker

    names = modules(arguments)
    if not names:
        raise UsageError("give at least one module, as app.receivers, or set DOMAIN_EVENTS_MODULES")
    use_broker(arguments.broker, arguments.broker_file, os.environ)
    found = load(names)
    check_brokers(found)
    return found


def by_broker(found: Sequence[Registration]) -> dict[Brokers, list[Registration]]:
    """Raises UsageError when all are offline."""
    from domain_events.settings import configured_brokers
    from domain_events.transport.migration.work import by_brokers

    groups = by_brokers(found, lambda each: configured_brokers(each.connection_settings, "consumer"))
    if not groups:
        raise UsageError("all receivers are offline: there is no broker to look at")
    return dict(groups)


def management(arguments: argparse.Namespace, brokers: Sequence[Broker], *, of_several: bool = False) -> Management:
    """`of_several`: there are other brokers, too; a URL that is given is for the one at its host, for it would tell of
    the others what is not so. Raises ConfigurationError."""
    from domain_events.transport.migration.management import management_of

    url = arguments.management or os.environ.get("DOMAIN_EVENTS_MANAGEMENT") or None
    if url is not None and of_several and not any(broker.host == _host_of(url) for broker in brokers):
        url = None
    return management_of(brokers[0], url)


def _host_of(url: str) -> str | None:
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname
    return None


def connection_settings(arguments: argparse.Namespace) -> ConnectionSettings:
    """For what has no modules. A broker that the arguments name wins also over DOMAIN_EVENT_PRODUCER_BROKER, which a
    supervisor's --broker does not. Raises ConfigurationError."""
    from domain_events import settings
    from domain_events.cli.application import set_up
    from domain_events.supervisor.brokers import named_broker, use_broker

    named = named_broker(arguments.broker, arguments.broker_file)
    if named is not None:
        return named
    set_up()
    use_broker(None, None, os.environ)  # systemd's credential
    return settings.DEFAULT


def broker_of(arguments: argparse.Namespace, role: Role) -> Brokers:
    """For what has no modules. Raises ConfigurationError, or UsageError when this is offline."""
    from domain_events.settings import configured_brokers

    brokers = configured_brokers(connection_settings(arguments), role)
    if brokers is None:
        raise UsageError("this is offline: there is no broker. Name one with --broker or --broker-file")
    return brokers
