"""The receivers of a Django project: those in `receivers.py` of its installed apps, and of other modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from domain_events.errors import ConfigurationError
from domain_events.registration import Registration
from domain_events.supervisor.discovery import discover

ALL_APPS = "domain_events.django"
"""Named among modules, it stands for the receivers of all installed apps."""


def load_receivers(names: Sequence[str]) -> tuple[Registration, ...]:
    """Import the modules, and take their receivers. Raises ConfigurationError, as when a module cannot be imported."""
    modules = list(dict.fromkeys(_expanded(names)))
    if not modules:
        raise ConfigurationError(
            "no installed app has a receivers.py; write one in an app of INSTALLED_APPS, with a global "
            "`receiver = Receiver()`, or name a module on the command line"
        )
    return discover(modules)


def receiver_modules() -> list[str]:
    """The names of `receivers` modules of installed apps, in the order of INSTALLED_APPS. Imports none of them."""
    return [
        f"{config.name}.receivers"
        for config in apps.get_app_configs()
        if config.module is not None and module_has_submodule(config.module, "receivers")
    ]


def _expanded(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name == ALL_APPS:
            yield from receiver_modules()
        else:
            yield name
