"""What only RabbitMQ's management plugin can tell: all queues, what is in them, and all bindings. Over its HTTP API."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from domain_events.errors import ConfigurationError, DomainEventError
from domain_events.settings import Broker
from domain_events.transport.parameters import connection_parameters

TIMEOUT = 10.0
"""Seconds for one answer."""

LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes: some hundred thousand queues."""


class ManagementUnavailable(DomainEventError):
    """The management plugin does not answer, or not to this login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedQueue:
    name: str
    arguments: Mapping[str, Any]
    messages: int | None
    """All that is in it: ready, in hand, and what waits inside for a target that is missing. None: no statistics."""
    consumers: int | None
    exclusive: bool = False
    """Of one connection, and gone with it."""


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A binding from exchange to exchange."""

    exchange: str
    to: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A virtual host."""

    queues: Mapping[str, ListedQueue]
    bindings: Sequence[Binding]
    forwardings: Sequence[Forwarding] = ()


class Management:
    def __init__(self, url: str, user: str, password: str, virtual_host: str, context: ssl.SSLContext | None) -> None:
        self.url = url
        self._user = user
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._virtual_host = quote(virtual_host, safe="")
        self._context = context

    def list(self) -> Listing:
        """Raises ManagementUnavailable."""
        queues = {queue.name: queue for queue in map(_queue, self._get("queues"))}
        bindings: list[Binding] = []
        forwardings: list[Forwarding] = []
        for entry in self._get("bindings"):
            source, destination, key = (str(entry[name]) for name in ("source", "destination", "routing_key"))
            if entry["destination_type"] != "queue":
                forwardings.append(Forwarding(source, destination, key))
            elif source:
                bindings.append(Binding(source, destination, key))
        return Listing(queues=queues, bindings=bindings, forwardings=forwardings)

    def _get(self, what: str) -> Sequence[Mapping[str, Any]]:
        request = urllib.request.Request(  # noqa: S310  the scheme has been checked
            f"{self.url}/api/{what}/{self._virtual_host}", headers={"Authorization": f"Basic {self._login}"}
        )
        try:
            with _opener(self._context).open(request, timeout=TIMEOUT) as answer:
                body = answer.read(LARGEST_ANSWER)
            found = json.loads(body)
        except urllib.error.HTTPError as error:
            remedy = "; the user needs the tag 'management' or 'monitoring'" if error.code in (401, 403) else ""
            raise ManagementUnavailable(f"{self.url} refused user {self._user!r} ({error.code}){remedy}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ManagementUnavailable(f"no management plugin answers at {self.url}: {reason}") from error
        if not isinstance(found, list):
            raise ManagementUnavailable(f"what answers at {self.url} is no management plugin of RabbitMQ")
        return found


def management_of(broker: Broker, url: str | None) -> Management:
    """Where `url` says, with the broker's login unless it names another; else at the usual port of the broker's host.

    Raises ConfigurationError, which does not repeat the URL.
    """
    tls = connection_parameters(broker, "management").ssl_options
    if url is None:
        place = _bracketed(broker.host)
        # A login that goes to the broker in a safe way must not go to the plugin in an unsafe one.
        url = f"https://{place}:15671" if broker.tls else f"http://{place}:15672"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ConfigurationError("--management is no valid URL, as http://localhost:15672") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("--management must be a URL that begins with http:// or https://")
    return Management(
        f"{parts.scheme}://{_bracketed(host)}{f':{port}' if port else ''}{parts.path.rstrip('/')}",
        unquote(parts.username) if parts.username is not None else broker.user,
        unquote(parts.password) if parts.password is not None else broker.password,
        broker.virtual_host,
        tls.context if tls is not None else None,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _opener(context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    # No proxy of the environment: the login is for the broker alone. Nor a redirection, which would take it along.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirection()]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _queue(entry: Mapping[str, Any]) -> ListedQueue:
    messages, consumers = entry.get("messages"), entry.get("consumers")
    return ListedQueue(
        name=str(entry["name"]),
        arguments=dict(entry.get("arguments") or {}),
        messages=messages if isinstance(messages, int) else None,
        consumers=consumers if isinstance(consumers, int) else None,
        exclusive=entry.get("exclusive") is True,
    )
