"""Where the configuration comes from, and what a broker's URL means.

An explicit argument wins over `override()` (the supervisor's `--broker`), that over Django's settings, those
over the environment, and that over the default broker on localhost.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from domain_events.errors import ConfigurationError

DEFAULT_BROKER = "amqp://guest:guest@localhost:5672/%2F"


class _Default(enum.Enum):
    DEFAULT = "DEFAULT"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default.DEFAULT
"""Stands for "as configured" where `None` means offline."""

ConnectionSettings: TypeAlias = str | Sequence[str] | Literal[_Default.DEFAULT] | None
"""An AMQP URL, several of them (the nodes of a cluster), None (offline) or DEFAULT."""

Role: TypeAlias = Literal["producer", "consumer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker node, as its URL names it. Its `str` and `repr` hold no password."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    tls: bool = False
    heartbeat: int | None = None  # seconds; None: what the broker proposes
    connection_timeout: float = 10.0  # seconds, for TCP, TLS and login together
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    server_name: str | None = None

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = self.virtual_host.replace("/", "%2F")
        return f"{scheme}://{self.user}@{host}:{self.port}/{vhost}"


def configured_brokers(settings: ConnectionSettings, role: Role) -> tuple[Broker, ...] | None:
    """The nodes to try for `settings`; None when offline. Raises ConfigurationError for a bad URL."""
    if settings is DEFAULT:
        return _from_configuration(role)
    return parse_brokers(settings, "connection_settings")


def parse_brokers(settings: object, source: str) -> tuple[Broker, ...] | None:
    """The nodes that a URL, a comma-separated list or a sequence names; None for None.

    `source` is where they were given, for the message of the ConfigurationError.
    """
    if settings is None:
        return None
    if isinstance(settings, str):
        # Not at every comma: one may stand in a password.
        urls: list[object] = list(re.split(r"\s*,\s*(?=amqps?://)", settings.strip().rstrip(", ")))
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


def _from_configuration(role: Role) -> tuple[Broker, ...] | None:
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


_ESCAPES = "'/', '?', '#' and '@' in a name or password are written as %2F, %3F, %23 and %40"


def parse_broker(url: object, source: str) -> Broker:
    """One URL: amqp[s]://user:password@host:port/vhost?heartbeat=30&cacertfile=...

    Query parameters are those of RabbitMQ's URI query specification (rabbitmq.com/docs/uri-query-parameters).
    Raises ConfigurationError, which never repeats the URL: a password in a malformed URL can be anywhere.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{source}: an AMQP URL must be a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = parts.hostname
    except ValueError as error:
        # urllib's messages may quote parts of the URL.
        reason = f"the port is no number in 1..65535; {_ESCAPES}" if "ort" in str(error) else "it cannot be parsed"
        raise ConfigurationError(f"{source} is no valid AMQP URL: {reason}") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise ConfigurationError(f"{source} is no valid AMQP URL: it must begin with amqp:// or amqps://")
    if not host:
        raise ConfigurationError(f"{source} is no valid AMQP URL: it names no host")
    if "," in host:
        raise ConfigurationError(f"{source} is no valid AMQP URL: every URL of a list begins with amqp:// or amqps://")
    if port == 0:
        raise ConfigurationError(f"{source} is no valid AMQP URL: the port is no number in 1..65535")
    if parts.fragment or "@" in parts.path + parts.query:
        # Part of a password then: `amqp://user:1/2@host` reads as host "user", port 1, virtual host "2@host".
        raise ConfigurationError(f"{source} is no valid AMQP URL: {_ESCAPES}")
    if parts.path.count("/") > 1:
        raise ConfigurationError(f"{source} is no valid AMQP URL: a virtual host with a slash is written with %2F")
    tls = parts.scheme == "amqps"
    return Broker(
        host=host,
        port=port or (5671 if tls else 5672),
        virtual_host=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        tls=tls,
        **_parameters(parts.query, source),  # type: ignore[arg-type]
    )


def _parameters(query: str, source: str) -> dict[str, object]:
    known: dict[str, tuple[str, Callable[[str], object]]] = {
        "heartbeat": ("heartbeat", _whole_seconds),
        "connection_timeout": ("connection_timeout", _milliseconds),  # in the URL: milliseconds
        "cacertfile": ("cafile", str),
        "certfile": ("certfile", str),
        "keyfile": ("keyfile", str),
        "verify": ("verify", {"verify_peer": True, "verify_none": False}.__getitem__),
        "server_name_indication": ("server_name", str),
    }
    found: dict[str, object] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(
                f"{source}: the AMQP URL has an unknown parameter {name!r}; known are {', '.join(sorted(known))}"
            )
        field_name, convert = known[name]
        try:
            found[field_name] = convert(text)
        except (ValueError, KeyError):
            raise ConfigurationError(f"{source}: the AMQP URL has {name}={text!r}, which is no valid value") from None
    return found


def _milliseconds(text: str) -> float:
    milliseconds = int(text)
    if milliseconds <= 0:
        raise ValueError(milliseconds)
    return milliseconds / 1000


def _whole_seconds(text: str) -> int:
    seconds = int(text)
    if not 0 <= seconds <= 65535:
        raise ValueError(seconds)
    return seconds
