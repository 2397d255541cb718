"""Which broker the command line names: --broker, --broker-file, systemd's credential; else the configuration."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from domain_events import settings
from domain_events.errors import ConfigurationError
from domain_events.registration import Registration

logger = logging.getLogger(__name__)


def use_broker(broker: str | None, broker_file: str | None, environ: Mapping[str, str]) -> None:
    """Let the broker named here stand for the configured one. Raises ConfigurationError."""
    if broker is not None:
        _use(broker, "--broker")
    elif broker_file is not None:
        _use(read_broker_file(broker_file), broker_file)
    elif (credential := _credential(environ)) and (urls := _read(credential)):
        _use(urls, credential)


def check_brokers(registrations: Iterable[Registration]) -> None:
    """Raises ConfigurationError for a malformed URL now, in one place, and not in each child."""
    for choice in {id(r.connection_settings): r.connection_settings for r in registrations}.values():
        settings.configured_brokers(choice, "consumer")


def read_broker_file(path: str) -> str:
    """The URLs in a file: one or several, separated by commas or line ends. Raises ConfigurationError."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ConfigurationError(f"the broker file {path} cannot be read: {error.strerror}") from error
    if mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"everybody may write the broker file {path}, and so send us to a broker of theirs; chmod o-w {path}"
        )
    if mode & stat.S_IROTH:
        # Not refused: secrets that containers mount are like this, and only the container sees them.
        logger.warning("everybody on this machine may read the broker file %s: chmod o-r would help", path)
    urls = _read(path)
    if not urls:
        raise ConfigurationError(f"the broker file {path} is empty; it must hold an AMQP URL")
    return urls


def _use(text: str, source: str) -> None:
    settings.parse_brokers(text, source)  # for an error that names the source
    settings.override(text)


def _credential(environ: Mapping[str, str]) -> str | None:
    """systemd's LoadCredential=broker:... (systemd.exec(5)); it cares for the mode of the file.

    A blank one counts as none: our unit has it stand in for a file that is missing.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(folder, "broker") if folder else ""
    return path if path and os.path.exists(path) else None


def _read(path: str) -> str:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigurationError(f"the broker file {path} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"the broker file {path} cannot be read: {error.strerror}") from error
    return ",".join(line.strip().rstrip(",") for line in lines if line.strip())
