"""Where the configuration comes from.

An explicit argument wins over `override()` (the supervisor's `--broker`), that over Django's settings, those
over the environment, and that over the default broker on localhost.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from domain_events.broker_file import BrokerFile, split_urls
from domain_events.broker_url import Broker as Broker
from domain_events.broker_url import parse_broker as parse_broker
from domain_events.errors import ConfigurationError

DEFAULT_BROKER = "amqp://guest:guest@localhost:5672/%2F"


class _Default(enum.Enum):
    DEFAULT = "DEFAULT"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default.DEFAULT
"""Stands for "as configured" where `None` means offline."""

ConnectionSettings: TypeAlias = str | Sequence[str] | Sequence[Broker] | Literal[_Default.DEFAULT] | None
"""An AMQP URL, several of them (the nodes of a cluster), file:///path of a file that holds them, None (offline) or
DEFAULT."""

Brokers: TypeAlias = tuple[Broker, ...] | BrokerFile
"""The nodes to try. What is in a file may be another answer at each look."""

Role: TypeAlias = Literal["producer", "consumer"]


def configured_brokers(settings: ConnectionSettings, role: Role) -> Brokers | None:
    """The nodes to try for `settings`; None when offline. Raises ConfigurationError for a bad URL."""
    if settings is DEFAULT:
        return _from_configuration(role)
    return parse_brokers(settings, "connection_settings")


def check_settings(settings: ConnectionSettings) -> ConnectionSettings:
    """To be kept in the place of `settings`: without a URL, which everybody would see who looks at the object.

    Raises ConfigurationError for a malformed URL. Files are not read: they may come later.
    """
    return settings if settings is DEFAULT else parse_brokers(settings, "connection_settings")


def parse_brokers(settings: object, source: str) -> Brokers | None:
    """The nodes that a URL, a comma-separated list, a sequence or a file names; None for None.

    `source` is where they were given, for the message of the ConfigurationError.
    """
    if settings is None or isinstance(settings, BrokerFile):
        return settings
    if isinstance(settings, str):
        if settings.lstrip().startswith("file:"):
            return _parse_file(settings.strip(), source)
        urls: list[object] = list(split_urls(settings))
    elif isinstance(settings, (list, tuple)):
        urls = list(settings)
    else:
        raise ConfigurationError(
            f"{source} must be an AMQP URL, a list of them or None (offline), not {type(settings).__name__}"
        )
    if not urls:
        raise ConfigurationError(f"{source} is an empty list; give at least one AMQP URL, or None for offline")
    return tuple(parse_broker(url, source) for url in urls)


def override(brokers: ConnectionSettings) -> None:
    """Let `brokers` stand for DEFAULT in this process. DEFAULT itself takes an earlier override back.

    An explicit DOMAIN_EVENT_PRODUCER_BROKER still decides for senders: the supervisor's `--broker` names the
    broker to consume from.
    """
    global _override
    _override = brokers


def add_source(source: Callable[[str], object]) -> None:
    """Ask `source(name)` before the environment; it returns NOT_SET for what it does not know."""
    if source not in _sources:
        _sources.append(source)


class _NotSet(enum.Enum):
    NOT_SET = "NOT_SET"


NOT_SET: Final = _NotSet.NOT_SET

_override: ConnectionSettings = DEFAULT
_sources: list[Callable[[str], object]] = []


def _from_configuration(role: Role) -> Brokers | None:
    own = f"DOMAIN_EVENT_{role.upper()}_BROKER"
    if _override is not DEFAULT and (role == "consumer" or _lookup(own) is NOT_SET):
        return parse_brokers(_override, "the broker given on the command line")
    for source in (*_sources, _environment):
        for name in (own, "DOMAIN_EVENT_BROKER"):
            value = source(name)
            if value is not NOT_SET:
                return parse_brokers(value, name)
    return parse_brokers(DEFAULT_BROKER, "the default broker")


def _lookup(name: str) -> object:
    for source in (*_sources, _environment):
        value = source(name)
        if value is not NOT_SET:
            return value
    return NOT_SET


def _environment(name: str) -> object:
    return os.environ.get(name) or NOT_SET


def _parse_file(url: str, source: str) -> BrokerFile:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.strip("/") or "\0" in path:
        raise ConfigurationError(f"{source} is no valid URL of a file: write file:///run/secrets/broker")
    return BrokerFile(path)
