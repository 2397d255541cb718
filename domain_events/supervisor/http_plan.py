"""Whether, where and for whom HTTP is served: --http and its token, checked before anything is forked."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from domain_events.errors import ConfigurationError
from domain_events.supervisor.addresses import Place, find
from domain_events.supervisor.http_process import HttpService, Serve
from domain_events.supervisor.options import Options

TOKEN_VARIABLE = "DOMAIN_EVENTS_HTTP_TOKEN"  # noqa: S105  the name, not the token
LEAST_TOKEN = 16
"""Characters."""

_LONGEST_TOKEN = 1024
_NEEDED = ("starlette", "uvicorn", "jinja2", "prometheus_client")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPlan:
    place: Place
    service: HttpService


def plan_http(options: Options, environ: Mapping[str, str], serve: Serve | None) -> HttpPlan | None:
    """None: nobody has asked for it. `serve` is what the child is for. Raises ConfigurationError."""
    if options.http is None:
        return None
    missing = missing_packages(_NEEDED)
    if serve is None or missing:
        raise ConfigurationError(
            f"--http needs {', '.join(missing) or 'the web room'}, which is not installed: "
            "pip install 'domain-events[http]'"
        )
    try:
        place = find(options.http)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--http {options.http}: there is no such address: {reason}") from error
    token = read_token(options.http_token_file, environ)
    if token is None and not place.is_loopback:
        raise ConfigurationError(
            f"--http {options.http} can be reached from outside: this needs a token, by --http-token-file, "
            f"$CREDENTIALS_DIRECTORY/http-token or {TOKEN_VARIABLE}; or bind to {place.name}'s loopback, as 127.0.0.1"
        )
    return HttpPlan(place=place, service=HttpService(serve=serve, token=token, hosts=(place.name, *options.http_hosts)))


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those that are not there. Imports none of them."""
    return [name for name in names if find_spec(name) is None]


def read_token(path: str | None, environ: Mapping[str, str]) -> str | None:
    """From the file, systemd's credential or the environment; None: there is none. Raises ConfigurationError."""
    if path is not None:
        return _checked(_in_file(path), path)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    credential = os.path.join(folder, "http-token") if folder else ""
    # A blank one counts as none, as for the broker: our unit has it stand in for a file that is missing.
    if credential and os.path.exists(credential) and (text := _in_file(credential)):
        return _checked(text, credential)
    if text := environ.get(TOKEN_VARIABLE, "").strip():
        return _checked(text, TOKEN_VARIABLE)
    return None


def _in_file(path: str) -> str:
    try:
        if os.path.isfile(path) and os.stat(path).st_mode & stat.S_IWOTH:
            raise ConfigurationError(f"the token file {path} can be written by everybody; chmod o-w {path}")
        with Path(path).open("rb") as file:
            return file.read(_LONGEST_TOKEN + 2).decode().strip()
    except OSError as error:
        raise ConfigurationError(f"the token file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the token file {path} holds no text") from None


def _checked(token: str, source: str) -> str:
    """Never repeats it."""
    if len(token) < LEAST_TOKEN:
        raise ConfigurationError(
            f"{source}: the token needs at least {LEAST_TOKEN} characters; make one with: openssl rand -hex 32"
        )
    if len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"{source}: a token is one word of at most {_LONGEST_TOKEN} ASCII characters")
    return token
