"""What the flags of the supervisor mean, checked. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from domain_events.errors import DomainEventError
from domain_events.supervisor.addresses import Address, address
from domain_events.supervisor.formats import FORMATS, LEVELS
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.slots import Rules
from domain_events.supervisor.wear import Lifespan

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", re.IGNORECASE)


class UsageError(DomainEventError):
    """A flag, its environment variable or an argument makes no sense. Names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults are those of the command."""

    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    processes: Mapping[str, int] = field(default_factory=dict)
    grace: float = 30.0
    kill_after: float = 5.0
    backoff: Backoff = field(default_factory=Backoff)
    stable_after: float = 30.0
    give_up_after: float = 300.0
    spawn_rate: float = 20.0
    boot_timeout: float = 60.0
    hang_timeout: float = 120.0
    max_event_crashes: int = 2
    max_events: int | None = None
    max_age: float | None = None
    max_rss: int | None = None
    ready: Literal["booted", "consuming"] = "booted"
    broker: str | None = None
    broker_file: str | None = None
    log_level: str = "INFO"
    log_format: str = "text"
    control: str | None = None
    lock: str | None = None
    http: Address | None = None
    http_token_file: str | None = None
    http_hosts: tuple[str, ...] = ()
    watch: bool = False
    alerts: bool = False
    check: bool = False

    @property
    def rules(self) -> Rules:
        return Rules(
            grace=self.grace,
            kill_after=self.kill_after,
            backoff=self.backoff,
            stable_after=self.stable_after,
            boot_timeout=self.boot_timeout,
        )

    @property
    def lifespan(self) -> Lifespan:
        return Lifespan(events=self.max_events, age=self.max_age, rss=self.max_rss)


def seconds(text: str) -> float:
    """A duration, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{text!r} must be a number of seconds, 0 or more")
    return value


def positive(text: str) -> float:
    value = seconds(text)
    if not value:
        raise ValueError("must be above 0")
    return value


def whole_number(text: str) -> int:
    """0 or more."""
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None
    if value < 0:
        raise ValueError(f"{text!r} must be a whole number, 0 or more")
    return value


def count(text: str) -> int:
    """1 or more."""
    value = whole_number(text)
    if not value:
        raise ValueError("must be 1 or more")
    return value


def size(text: str) -> int:
    """Bytes, as 300M: K, M and G stand for 1024, 1024^2 and 1024^3 of them."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} must be a size, as 300M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def backoff(text: str) -> Backoff:
    """BASE:CAP, in seconds."""
    base, colon, cap = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} must be BASE:CAP in seconds, as 0.5:60")
    parsed = Backoff(base=positive(base), cap=positive(cap))
    if parsed.cap < parsed.base:
        raise ValueError(f"{text!r}: the cap is below the base")
    return parsed


def names(text: str) -> tuple[str, ...]:
    """Receivers, separated by commas."""
    found = tuple(name for part in text.split(",") if (name := part.strip()))
    if not found:
        raise ValueError("names no receiver")
    return found


def processes(text: str) -> dict[str, int]:
    """NAME=N, separated by commas."""
    found: dict[str, int] = {}
    for part in names(text):
        name, equals, number = part.rpartition("=")
        if not (equals and name.strip() and number.strip().isdecimal()):
            raise ValueError(f"{part!r} must be NAME=N, as printer=2")
        if not 1 <= int(number) <= 1000:
            raise ValueError(f"{part!r}: N must be between 1 and 1000; leave a receiver out with --except")
        found[name.strip()] = int(number)
    return found


def one_of(*choices: str, change: Callable[[str], str] = str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        value = change(text)
        if value not in choices:
            raise ValueError(f"{text!r} must be one of {', '.join(choices)}")
        return value

    return parse


def not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def yes_or_no(text: str) -> bool:
    """For the environment twin of a flag without a value."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} must be 1 or 0")


log_level = one_of(*LEVELS, change=str.upper)
log_format = one_of(*FORMATS, change=str.lower)
ready = one_of("booted", "consuming")
http_address = address


def hosts(text: str) -> tuple[str, ...]:
    """Names of hosts, separated by commas, in lower case."""
    found = names(text)
    for name in found:
        if not _HOST.fullmatch(name):
            raise ValueError(f"{name!r} must be the name of a host, without scheme and port, as shop.example.com")
    return tuple(name.lower() for name in found)
