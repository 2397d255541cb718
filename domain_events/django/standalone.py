"""The receivers of a Django project for a process that manage.py has not started."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Sequence

import django
from django.apps import apps

from domain_events.django.discovery import load_receivers
from domain_events.errors import ConfigurationError
from domain_events.registration import Registration
from domain_events.supervisor.discovery import look_in_current_directory

_FRAMES = 3  # of a traceback, the innermost


def load(names: Sequence[str]) -> tuple[Registration, ...]:
    """Start Django with DJANGO_SETTINGS_MODULE, looked for in the current directory too; then `load_receivers`.

    Raises ConfigurationError.
    """
    set_up()
    return load_receivers(names)


def set_up() -> None:
    """Start Django with DJANGO_SETTINGS_MODULE, if nobody has. Raises ConfigurationError."""
    look_in_current_directory()
    if not apps.ready:
        _start()


def _start() -> None:
    # LOGGING without `disable_existing_loggers: False` turns off every logger that is there before Django starts.
    # Here these are the supervisor's own; manage.py would have started Django before them.
    ours = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.startswith("domain_events.") and not logger.disabled
    ]
    try:
        django.setup()
    except Exception as error:
        # The settings and the apps are not ours.
        trace = "".join(traceback.format_exception(error, limit=-_FRAMES, chain=False)).rstrip()
        settings = os.environ.get("DJANGO_SETTINGS_MODULE")
        raise ConfigurationError(f"Django does not start with DJANGO_SETTINGS_MODULE={settings}:\n{trace}") from error
    for logger in ours:
        logger.disabled = False
