"""The Django app: from now on Django's settings say where the broker is, and events find its database connections."""

from __future__ import annotations

from types import ModuleType

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from domain_events.lifecycle import before_fork
from domain_events.settings import NOT_SET, add_source
from domain_events.surroundings import surround


class DomainEventsConfig(AppConfig):
    name = "domain_events.django"
    label = "domain_events"
    verbose_name = "Domain events"

    def __init__(self, app_name: str, app_module: ModuleType | None) -> None:
        super().__init__(app_name, app_module)
        # Not in ready(): the ready() of an app that is listed before this one may send already.
        add_source(django_setting)

    def ready(self) -> None:
        from domain_events.django import checks, connections

        register(checks.check_brokers)
        register(checks.check_receivers)
        before_fork(connections.close_connections)
        surround(connections.SURROUNDINGS)


def django_setting(name: str) -> object:
    """Read anew each time, so that override_settings() and tests' `settings` fixtures work."""
    return getattr(settings, name, NOT_SET)
