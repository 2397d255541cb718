"""The flags of the supervisor on any argparse parser, each with its twin in the environment."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domain_events.supervisor import options
from domain_events.supervisor.options import Options, UsageError
from domain_events.supervisor.protocol import control_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """`name` as in Options. `twin`: DOMAIN_EVENTS_<FLAG> means the same."""

    name: str
    parse: Callable[[str], object]
    metavar: str
    help: str
    twin: bool = True

    @property
    def option(self) -> str:
        return f"--{self.name.rstrip('_').replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"DOMAIN_EVENTS_{self.name.rstrip('_').upper()}"


GROUPS: Mapping[str, tuple[Flag, ...]] = {
    "which receivers": (
        Flag(name="only", parse=options.names, metavar="A,B", help="these receivers and no others"),
        Flag(name="except_", parse=options.names, metavar="A,B", help="all but these"),
        Flag(
            name="processes",
            parse=options.processes,
            metavar="A=2,B=4",
            help="how many children a receiver has (default: as registered)",
        ),
    ),
    "stopping (seconds)": (
        Flag(
            name="grace",
            parse=options.seconds,
            metavar="S",
            help="for the events in hand after SIGTERM (default: 30)",
        ),
        Flag(
            name="kill_after",
            parse=options.seconds,
            metavar="S",
            help="then, between the order to leave now and SIGKILL (default: 5)",
        ),
    ),
    "starting and restarting (seconds)": (
        Flag(
            name="backoff",
            parse=options.backoff,
            metavar="BASE:CAP",
            help="delay before a crashed child is started again, doubling (default: 0.5:60)",
        ),
        Flag(
            name="stable_after",
            parse=options.seconds,
            metavar="S",
            help="of consuming, after which a crash is restarted at once (default: 30)",
        ),
        Flag(
            name="give_up_after",
            parse=options.seconds,
            metavar="S",
            help="exit 75 when all receivers fail for so long; 0: never (default: 300)",
        ),
        Flag(
            name="spawn_rate",
            parse=options.positive,
            metavar="N",
            help="at most so many forks in a second (default: 20)",
        ),
        Flag(
            name="boot_timeout",
            parse=options.positive,
            metavar="S",
            help="a child that has not booted by then is ended (default: 60)",
        ),
        Flag(
            name="hang_timeout",
            parse=options.seconds,
            metavar="S",
            help="a child without a sign of life for so long is ended; 0: never (default: 120)",
        ),
        Flag(
            name="max_event_crashes",
            parse=options.whole_number,
            metavar="N",
            help="deaths of its consumer after which an event is dead-lettered; 0: never (default: 2)",
        ),
        Flag(
            name="ready",
            parse=options.ready,
            metavar="booted|consuming",
            help="when systemd is told that we are ready (default: booted)",
        ),
    ),
    "recycling: a child is replaced between two events (give or take 10 %)": (
        Flag(name="max_events", parse=options.count, metavar="N", help="after so many events"),
        Flag(name="max_age", parse=options.positive, metavar="S", help="after so many seconds"),
        Flag(name="max_rss", parse=options.size, metavar="SIZE", help="when its memory exceeds this, as 300M"),
    ),
    "broker": (
        Flag(
            name="broker",
            parse=options.not_empty,
            metavar="URL[,URL]",
            help="AMQP URL, several for the nodes of a cluster",
            twin=False,  # DOMAIN_EVENT_CONSUMER_BROKER and DOMAIN_EVENT_BROKER are
        ),
        Flag(
            name="broker_file",
            parse=options.not_empty,
            metavar="FILE",
            help="a file that holds it (default: $CREDENTIALS_DIRECTORY/broker, then the configuration)",
        ),
    ),
    "logs": (
        Flag(
            name="log_level",
            parse=options.log_level,
            metavar="L",
            help="DEBUG, INFO, WARNING, ERROR or CRITICAL (default: INFO)",
        ),
        Flag(name="log_format", parse=options.log_format, metavar="text|json", help="default: text"),
    ),
    "the master": (
        Flag(
            name="control",
            parse=options.not_empty,
            metavar="PATH",
            help="UNIX socket for the command domain-events (default: $RUNTIME_DIRECTORY/control.sock, if set)",
        ),
        Flag(
            name="lock",
            parse=options.not_empty,
            metavar="FILE",
            help="a second master with the same file exits 73",
        ),
    ),
    "health, metrics and the page": (
        Flag(
            name="http",
            parse=options.http_address,
            metavar="HOST:PORT",
            help="serve /livez, /readyz, /metrics and the page; without a HOST on loopback (needs the extra 'http')",
        ),
        Flag(
            name="http_token_file",
            parse=options.not_empty,
            metavar="FILE",
            help="who has the token may change things, and a HOST outside of loopback needs one "
            "(default: $CREDENTIALS_DIRECTORY/http-token, or DOMAIN_EVENTS_HTTP_TOKEN)",
        ),
        Flag(
            name="http_hosts",
            parse=options.hosts,
            metavar="A,B",
            help="names by which a proxy before a loopback address is asked; others are refused there",
        ),
    ),
}


SWITCHES: Mapping[str, str] = {
    "check": "import and validate, print the receivers as JSON, exit 0 or 78",
    "alerts": "send an event about each dead letter, and about each receiver that fails or recovers",
    "watch": "for development: reload when files of the application change",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags but `--version`, and no positional arguments. To be read with `read_options`."""
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            group.add_argument(flag.option, dest=flag.name, metavar=flag.metavar, help=flag.help)
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", default=None, help=text)


def read_options(given: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    """`given` is `vars()` of the parsed arguments: they win over `environ`, and both over the defaults.

    Raises UsageError. A variable that is set to nothing counts as not set, as in an environment file.
    """
    values: dict[str, Any] = {}
    for flag in (flag for flags in GROUPS.values() for flag in flags):
        text = given.get(flag.name)
        if text is not None:
            values[flag.name] = _parsed(flag.parse, flag.option, text)
        elif flag.twin and environ.get(flag.variable):
            values[flag.name] = _parsed(flag.parse, flag.variable, environ[flag.variable])
    for name in SWITCHES:
        variable = f"DOMAIN_EVENTS_{name.upper()}"
        if given.get(name) is not None:
            values[name] = bool(given[name])
        elif environ.get(variable):
            values[name] = _parsed(options.yes_or_no, variable, environ[variable])
    values.setdefault("control", control_path(environ))
    return Options(**values)


def read_modules(given: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """The modules named by the arguments, else by DOMAIN_EVENTS_MODULES, separated by spaces or commas."""
    return given["modules"] or environ.get("DOMAIN_EVENTS_MODULES", "").replace(",", " ").split()


def is_logging_given(given: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether somebody has asked for a level or a format of the log; then an application's LOGGING gives way."""
    names = ("log_level", "log_format")
    return any(given.get(name) is not None or environ.get(f"DOMAIN_EVENTS_{name.upper()}") for name in names)


def _parsed(parse: Callable[[str], object], source: str, text: str) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from None
