"""Which receivers an application has: its modules are imported and looked through."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from domain_events.errors import ConfigurationError
from domain_events.receiver import Receiver
from domain_events.registration import Registration

_FRAMES = 3  # of a traceback, the innermost
_OURS = str(Path(__file__).resolve().parents[1])


def discover(names: Sequence[str]) -> tuple[Registration, ...]:
    """Import modules by name, with the current directory on sys.path, and take what their Receivers hold.

    Raises ConfigurationError: a module cannot be imported, there is no receiver, or a name is there twice.
    """
    look_in_current_directory()
    modules: list[ModuleType] = []
    for name in names:
        modules += _with_submodules(_imported(name))
    return registrations_in(modules)


def look_in_current_directory() -> None:
    """Let modules be imported from there, as `python -m` does."""
    cwd = os.getcwd()
    if cwd not in sys.path and "" not in sys.path:
        sys.path.insert(0, cwd)


def registrations_in(modules: Iterable[ModuleType]) -> tuple[Registration, ...]:
    """All registrations of every Receiver that is a global of one of `modules`, in order, each once."""
    modules = list(dict.fromkeys(modules))
    receivers: dict[int, Receiver] = {}
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, Receiver):
                receivers.setdefault(id(value), value)
    found: dict[str, Registration] = {}
    for receiver in receivers.values():
        for registration in receiver.registrations:
            if registration.name in found:
                raise ConfigurationError(f"two receivers are named {registration.name!r}: names are unique")
            found[registration.name] = registration
    if not found:
        where = ", ".join(module.__name__ for module in modules)
        raise ConfigurationError(
            f"no receiver in {where}: a module needs a global `receiver = Receiver()` "
            "and at least one `receiver.register(...)` or `@receiver.handles(...)`"
        )
    return tuple(found.values())


def _with_submodules(module: ModuleType) -> list[ModuleType]:
    """The module and what of its package is imported by now. Nothing more is imported: that is the user's."""
    prefix = f"{module.__name__}."
    children = [child for name, child in sorted(sys.modules.items()) if name.startswith(prefix) and child is not None]
    return [module, *children]


def _imported(name: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        guess = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(f"{name!r} is a path; give the module's name, as {guess}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package on the way to it: a traceback of importlib would say nothing more.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"there is no module {error.name!r} (looked for {name!r} in {os.getcwd()} and the Python path)"
            ) from error
        raise ConfigurationError(_import_message(name, error)) from error
    except (Exception, SystemExit) as error:
        # Foreign code: the user's module.
        raise ConfigurationError(_import_message(name, error)) from error


def _import_message(name: str, error: BaseException) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", _OURS)) and "importlib" not in frame.filename
    ]
    what = "".join(traceback.format_exception_only(error)).rstrip()
    where = "".join(traceback.format_list(frames[-_FRAMES:])).rstrip()
    return "\n".join(part for part in (f"cannot import {name!r}:", where, what) if part)
