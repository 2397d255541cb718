"""`domain-events-supervisor MODULE...`: run the receivers of these modules."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from domain_events.cli.application import load
from domain_events.supervisor import launch, titles
from domain_events.supervisor.arguments import add_arguments, is_logging_given, read_modules, read_options
from domain_events.supervisor.exits import MasterExit
from domain_events.supervisor.formats import configure
from domain_events.supervisor.leaving import leave
from domain_events.supervisor.options import Options, UsageError
from domain_events.supervisor.signals import StoppedEarly, stop_early
from domain_events.supervisor.starting import start
from domain_events.version import __version__
from domain_events.web.serving import serve

_DESCRIPTION = """\
Import the modules, and run one child process for each receiver that they register. What crashes is started
again; SIGTERM or Ctrl-C finishes the events in hand and ends. Every flag can be set in the environment as well:
--kill-after is DOMAIN_EVENTS_KILL_AFTER, the modules are DOMAIN_EVENTS_MODULES."""

_EPILOG = """\
exit codes: 0 stopped cleanly, 64 usage, 70 internal error, 73 lock taken, 75 all receivers keep failing,
            78 import or configuration, 80 something was cut when it stopped
signals:    TERM or INT: drain; a second INT, or QUIT: leave now; HUP: reload; USR2: the stacks of all processes
            into the log; TTIN or TTOU: one process more or less

examples:
  domain-events-supervisor app.receivers --check
  domain-events-supervisor app.receivers --only printer --log-level debug
  domain-events-supervisor app.receivers --alerts
  domain-events-supervisor app.receivers --processes printer=4 --grace 60 --lock /tmp/app.lock
  domain-events-supervisor app.receivers --http 9100 --http-token-file /run/secrets/http-token
  domain-events-supervisor app.receivers --broker amqp://guest:guest@localhost:5672/%2F
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(MasterExit.USAGE, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    titles.remember_original()
    launch.remember()
    launch.occupy_standard_descriptors()
    parser = _parser()
    arguments = parser.parse_args(argv)
    modules = read_modules(vars(arguments), os.environ)
    if not modules:
        parser.error("give at least one module, as app.receivers, or set DOMAIN_EVENTS_MODULES")
    titles.hide_arguments(" ".join(modules))
    try:
        options = read_options(vars(arguments), os.environ)
    except UsageError as error:
        parser.error(str(error))
    configure(options.log_level, options.log_format)
    try:
        stop_early()
        loading = partial(load, modules, partial(_configure_again, options, vars(arguments)))
        return leave(start(loading, options, title=" ".join(modules), serve=serve))
    except StoppedEarly:
        return leave(MasterExit.CLEAN)
    except KeyboardInterrupt:
        # While the application was imported; later, the master has SIGINT for itself.
        return leave(128 + 2)


def _configure_again(options: Options, given: Mapping[str, Any]) -> None:
    """LOGGING in Django's settings has taken the root logger over. That is right unless we were asked otherwise."""
    if is_logging_given(given, os.environ):
        configure(options.log_level, options.log_format)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="domain-events-supervisor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="with global Receivers, as app.receivers")
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
