"""`manage.py domain_events_supervisor`: run the receivers of the installed apps."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from domain_events.django.discovery import ALL_APPS, load_receivers
from domain_events.supervisor import launch, titles
from domain_events.supervisor.arguments import add_arguments, is_logging_given, read_modules, read_options
from domain_events.supervisor.exits import MasterExit
from domain_events.supervisor.formats import configure
from domain_events.supervisor.leaving import leave
from domain_events.supervisor.options import Options, UsageError
from domain_events.supervisor.signals import StoppedEarly, stop_early
from domain_events.supervisor.starting import start
from domain_events.web.serving import serve

_ARGPARSE_USAGE = 2


class Command(BaseCommand):
    help = (
        "Import receivers.py of every installed app, and run one child process for each receiver in them. "
        "As domain-events-supervisor, with the same flags, environment variables, signals and exit codes."
    )
    # The supervisor checks by itself what it needs, and has exit codes for it.
    requires_system_checks: list[str] = []  # noqa: RUF012  as in BaseCommand

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "modules", nargs="*", metavar="MODULE", help="more modules with global Receivers, outside of the apps"
        )
        add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            # Django's parser leaves with argparse's code for a wrong flag; all others are ours already.
            if end.code == _ARGPARSE_USAGE:
                sys.exit(MasterExit.USAGE)
            if isinstance(end.code, int):
                leave(end.code)
            raise
        leave(MasterExit.CLEAN)

    def handle(self, *args: Any, **given: Any) -> None:
        titles.remember_original()
        launch.remember()
        launch.occupy_standard_descriptors()
        modules = read_modules(given, os.environ)
        title = " ".join([getattr(settings, "SETTINGS_MODULE", None) or "django", *modules])
        titles.hide_arguments(title)
        try:
            options = read_options(given, os.environ)
        except UsageError as error:
            raise CommandError(str(error), returncode=MasterExit.USAGE) from error
        _configure_logging(options, given)
        try:
            stop_early()
            load = partial(load_receivers, [ALL_APPS, *modules])
            code = start(load, options, title=title, out=self.stdout.write, serve=serve)
        except StoppedEarly:
            code = MasterExit.CLEAN
        except KeyboardInterrupt:
            # While the application was imported; later, the master has SIGINT for itself.
            code = 128 + 2
        if code:
            sys.exit(code)


def _configure_logging(options: Options, given: dict[str, Any]) -> None:
    """As the command line tool does, unless LOGGING in the settings has something for the root logger to do."""
    if is_logging_given(given, os.environ) or not logging.root.handlers:
        configure(options.log_level, options.log_format)
