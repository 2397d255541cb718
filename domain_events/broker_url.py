"""One broker node, and the URL that names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from domain_events.errors import ConfigurationError
from domain_events.showing import printable

Mechanism: TypeAlias = Literal["plain", "external"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker node, as its URL names it. Its `str` and `repr` hold no password."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    tls: bool = False
    heartbeat: int | None = None  # seconds; None: the default of `transport.connection`
    connection_timeout: float = 10.0  # seconds, for TCP, TLS and login together
    cafile: str | None = None  # None: the authorities that this machine trusts
    certfile: str | None = None
    keyfile: str | None = None  # None: the key is in `certfile`
    verify: bool = True
    server_name: str | None = None  # None: the host
    mechanism: Mechanism = "plain"  # external: the client certificate is the login

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        login = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = self.virtual_host.replace("/", "%2F")
        return printable(f"{scheme}://{login}{host}:{self.port}/{vhost}")  # %0A in a URL is a line end in a name


_HOST = re.compile(r"[\w.-]+|[0-9a-f]*:[0-9a-f:.]+(%\w+)?", re.IGNORECASE)
_PARAMETER = re.compile(r"[a-z_]{1,30}")  # anything else may be a part of a password
_ESCAPES = "'/', '?', '#' and '@' in a name or password are written as %2F, %3F, %23 and %40"


def parse_broker(url: object, source: str) -> Broker:
    """One URL: amqp[s]://user:password@host:port/vhost?heartbeat=30&cacertfile=...

    Query parameters are those of RabbitMQ's URI query specification (rabbitmq.com/docs/uri-query-parameters).
    Raises ConfigurationError, which never repeats the URL: a password in a malformed URL can be anywhere.
    """
    if isinstance(url, Broker):
        return url
    if not isinstance(url, str):
        raise ConfigurationError(f"{source}: an AMQP URL must be a string, not {type(url).__name__}")
    return _read_url(url, source)


# Remembered: what is configured is asked for with each event that is sent.
@lru_cache(maxsize=64)
def _read_url(url: str, source: str) -> Broker:
    parts, port, reason = _split(url)
    if parts is None:
        raise ConfigurationError(f"{source} is no valid AMQP URL: {reason}")
    host = parts.hostname
    if parts.scheme not in ("amqp", "amqps"):
        raise ConfigurationError(f"{source} is no valid AMQP URL: it must begin with amqp:// or amqps://")
    if not host:
        raise ConfigurationError(f"{source} is no valid AMQP URL: it names no host")
    if "," in host:
        raise ConfigurationError(f"{source} is no valid AMQP URL: every URL of a list begins with amqp:// or amqps://")
    if not _HOST.fullmatch(host) or not _can_be_looked_up(host, parts.scheme):
        raise ConfigurationError(f"{source} is no valid AMQP URL: what stands for the host is no host")
    if port == 0:
        raise ConfigurationError(f"{source} is no valid AMQP URL: the port is no number in 1..65535")
    if parts.fragment or "@" in parts.path + parts.query:
        # Part of a password then: `amqp://user:1/2@host` reads as host "user", port 1, virtual host "2@host".
        raise ConfigurationError(f"{source} is no valid AMQP URL: {_ESCAPES}")
    if parts.path.count("/") > 1:
        raise ConfigurationError(f"{source} is no valid AMQP URL: a virtual host with a slash is written with %2F")
    tls = parts.scheme == "amqps"
    parameters = _parameters(parts.query, source)
    _check_tls(tls, parameters, source)
    # With a certificate for a login there is no password, and no guest either.
    default = "" if parameters.get("mechanism") == "external" else "guest"
    return Broker(
        host=host,
        port=port or (5671 if tls else 5672),
        virtual_host=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username) if parts.username is not None else default,
        password=unquote(parts.password) if parts.password is not None else default,
        tls=tls,
        **parameters,  # type: ignore[arg-type]
    )


def _can_be_looked_up(host: str, scheme: str) -> bool:
    if scheme == "amqp" and host.isascii():
        return True
    # Not left to whoever connects, who would import the codec for it: a process that is forked in that moment has the
    # import lock for ever, held by a thread that it does not have. Others do without the codec: see `IOServices`.
    with suppress(UnicodeError):
        return bool(host.encode("idna"))
    return False


def _split(url: str) -> tuple[SplitResult | None, int | None, str]:
    """The parts and the port, or why there are none. Nothing is raised: urllib's messages quote the URL, and whatever
    is raised in their `except` takes them along as its context."""
    try:
        parts = urlsplit(url.strip())
        return parts, parts.port, ""
    except ValueError as error:
        is_port = "ort" in str(error)
    return None, None, f"the port is no number in 1..65535; {_ESCAPES}" if is_port else "it cannot be parsed"


def _parameters(query: str, source: str) -> dict[str, object]:
    file = "the path of a file"
    known: dict[str, tuple[str, Callable[[str], object], str]] = {
        "heartbeat": ("heartbeat", _whole_seconds, "a whole number of seconds in 0..65535"),
        "connection_timeout": ("connection_timeout", _milliseconds, "a whole number of milliseconds above 0"),
        "cacertfile": ("cafile", _not_empty, file),
        "certfile": ("certfile", _not_empty, file),
        "keyfile": ("keyfile", _not_empty, file),
        "verify": ("verify", {"verify_peer": True, "verify_none": False}.__getitem__, "verify_peer or verify_none"),
        "server_name_indication": ("server_name", _not_empty, "the name of a host"),
        "auth_mechanism": ("mechanism", {name: name for name in get_args(Mechanism)}.__getitem__, "plain or external"),
    }
    found: dict[str, object] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            shown = f" {name!r}" if _PARAMETER.fullmatch(name) else ""
            raise ConfigurationError(
                f"{source}: the AMQP URL has an unknown parameter{shown}; known are {', '.join(sorted(known))}"
            )
        field_name, convert, valid = known[name]
        with suppress(ValueError, KeyError):
            found[field_name] = convert(text)
            continue
        raise ConfigurationError(f"{source}: the AMQP URL has {name}= with no valid value; it must be {valid}")
    return found


def _check_tls(tls: bool, parameters: dict[str, object], source: str) -> None:
    """What cannot mean what its author believes. Worst is a connection in the clear that he takes for a safe one."""
    if not tls and parameters.keys() & {"cafile", "certfile", "keyfile", "verify", "server_name"}:
        raise ConfigurationError(f"{source}: the AMQP URL has TLS parameters, but amqp:// is plain; write amqps://")
    if "keyfile" in parameters and "certfile" not in parameters:
        raise ConfigurationError(f"{source}: the AMQP URL names a key, but no certificate: add certfile=")
    if parameters.get("mechanism") == "external" and "certfile" not in parameters:
        raise ConfigurationError(
            f"{source}: auth_mechanism=external is the login by a client certificate: it needs amqps:// and certfile="
        )


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


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
