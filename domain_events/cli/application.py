"""The receivers of the application's modules, for both commands; under Django when they ask for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from domain_events.errors import ConfigurationError
from domain_events.registration import Registration
from domain_events.supervisor.discovery import discover

_DJANGO = "domain_events.django"


def load(modules: Sequence[str], django_is_set_up: Callable[[], None] = lambda: None) -> Sequence[Registration]:
    """Raises ConfigurationError. `django_is_set_up` is called when Django has taken the logging over."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE") and _DJANGO not in modules:
        return discover(modules)
    load: Callable[[Sequence[str]], Sequence[Registration]] = _standalone().load
    registrations = load(modules)
    django_is_set_up()
    return registrations


def set_up() -> None:
    """What commands without modules need: Django's settings, where there are any. Raises ConfigurationError."""
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        _standalone().set_up()


def _standalone() -> Any:
    try:
        # By name, as the modules themselves: this room does without Django, and so may its users.
        return import_module(f"{_DJANGO}.standalone")
    except ModuleNotFoundError as error:
        if error.name != "django":
            raise
        raise ConfigurationError(
            "Django is not installed: install it (the extra 'django'), or unset DJANGO_SETTINGS_MODULE"
        ) from error
