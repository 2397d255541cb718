"""What `manage.py check` finds: a malformed broker URL, and receivers that cannot be imported."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error

from domain_events.django.apps import django_setting
from domain_events.django.discovery import receiver_modules
from domain_events.errors import ConfigurationError
from domain_events.settings import NOT_SET, parse_brokers

SETTINGS = ("DOMAIN_EVENT_BROKER", "DOMAIN_EVENT_PRODUCER_BROKER", "DOMAIN_EVENT_CONSUMER_BROKER")


def check_brokers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """domain_events.E001: a setting is no AMQP URL, no list of them and not None."""
    found: list[CheckMessage] = []
    for name in SETTINGS:
        value = django_setting(name)
        if value is NOT_SET:
            continue
        try:
            parse_brokers(value, name)
        except ConfigurationError as error:
            hint = "Write amqp://user:password@host:5672/vhost, several in a list, file:///path, or None for offline."
            found.append(Error(str(error), hint=hint, id="domain_events.E001"))
    return found


def check_receivers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """domain_events.E002: an app's receivers.py cannot be imported."""
    found: list[CheckMessage] = []
    for name in receiver_modules():
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  foreign code: the user's module
            what = "".join(traceback.format_exception_only(error)).strip()
            where = traceback.extract_tb(error.__traceback__)[-1]
            hint = f"It was raised in {where.filename}, line {where.lineno}. The supervisor would not start."
            found.append(Error(f"{name} cannot be imported: {what}", hint=hint, id="domain_events.E002"))
    return found
