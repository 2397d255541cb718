"""All receivers of a Django project, to be named to the supervisor where there is no manage.py.

`DJANGO_SETTINGS_MODULE=shop.settings domain-events-supervisor domain_events.django.autodiscover`
"""

from __future__ import annotations

import logging

import django
from django.apps import apps

from domain_events.django.discovery import load_receivers
from domain_events.receiver import Receiver
from domain_events.registration import Registration


class _Autodiscovered(Receiver):
    """Shows the receivers of all installed apps as its own."""

    def __init__(self) -> None:
        super().__init__()
        self._found = load_receivers()

    @property
    def registrations(self) -> tuple[Registration, ...]:
        return self._found


def _set_up() -> None:
    if apps.ready:
        return
    # LOGGING without `disable_existing_loggers: False` turns off every logger that is there before Django starts.
    # Here these are the supervisor's own, which it would leave alone if manage.py had started Django first.
    ours = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.startswith("domain_events.") and not logger.disabled
    ]
    django.setup()
    for logger in ours:
        logger.disabled = False


_set_up()
receiver = _Autodiscovered()
