"""Which broker the command line names: --broker, --broker-file, systemd's credential; else the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from domain_events import settings
from domain_events.broker_file import BrokerFile, brokers_in
from domain_events.errors import ConfigurationError
from domain_events.registration import Registration


def use_broker(broker: str | None, broker_file: str | None, environ: Mapping[str, str]) -> None:
    """Let the broker named here stand for the configured one. Raises ConfigurationError.

    A file is read again at each connect, also in the children: a new password is used when the old one ends.
    """
    brokers = named_broker(broker, broker_file)
    if brokers is None:
        brokers = _credential(environ)
    if brokers is not None:
        _read(brokers)
        settings.override(brokers)


def named_broker(broker: str | None, broker_file: str | None) -> settings.Brokers | None:
    """By the flags; None when neither is given. Raises ConfigurationError."""
    if broker is not None:
        brokers = settings.parse_brokers(broker, "--broker")
    elif broker_file is not None:
        brokers = _in_file(broker_file)
    else:
        return None
    _read(brokers)
    return brokers


def check_brokers(registrations: Iterable[Registration]) -> None:
    """Raises ConfigurationError for a malformed URL or a missing file now, in one place, and not in each child."""
    for choice in {id(r.connection_settings): r.connection_settings for r in registrations}.values():
        _read(settings.configured_brokers(choice, "consumer"))


def _read(brokers: settings.Brokers | None) -> None:
    """What is wrong with a file is to be known now, and not at the first connect."""
    if isinstance(brokers, BrokerFile):
        brokers.read()


def _in_file(path: str) -> settings.Brokers:
    if os.path.isfile(path) or not os.path.exists(path):
        return BrokerFile(path)
    # A pipe, as the shell's <(...): it can be read once.
    try:
        return brokers_in(Path(path).read_bytes(), path)
    except OSError as error:
        raise ConfigurationError(f"the broker file {path} cannot be read: {error.strerror}") from error


def _credential(environ: Mapping[str, str]) -> BrokerFile | None:
    """systemd's LoadCredential=broker:... (systemd.exec(5)); it cares for the mode of the file.

    A blank one counts as none: our unit has it stand in for a file that is missing.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(folder, "broker") if folder else ""
    try:
        return BrokerFile(path) if path and Path(path).read_bytes().strip() else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"the broker file {path} cannot be read: {error.strerror}") from error
