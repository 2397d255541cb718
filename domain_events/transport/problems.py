"""What pika's and the broker's errors mean, in our own words."""

from __future__ import annotations

import re
from typing import TypeGuard

from pika import exceptions

from domain_events.errors import (
    AccessRefused,
    BrokerError,
    BrokerRefused,
    ConnectionFailed,
    ExchangeMismatch,
    ExchangeMissing,
    LoginRefused,
    SendError,
    TLSFailed,
    TopologyMismatch,
    VirtualHostRefused,
)
from domain_events.settings import Broker
from domain_events.showing import one_line
from domain_events.transport.tls import handshake_problem, suspicion

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>queue|exchange) '(?P<name>[^']*)' in vhost '[^']*': "
    r"received (?P<received>.*?) but current is (?P<current>.*)",
    re.DOTALL,
)


def connection_problem(error: BaseException | None, broker: Broker) -> SendError:
    """Why `broker` could not be reached, or was lost: BrokerRefused, or ConnectionFailed when it may come back."""
    cause = _root(error)
    if isinstance(cause, exceptions.ProbableAuthenticationError) and _said_by_broker(cause):
        if broker.mechanism == "external":
            return LoginRefused(
                f"{broker} refused the login by the certificate {broker.certfile} (403); "
                f"a user must be named as its subject (ssl_cert_login_from)"
            )
        return LoginRefused(f"{broker} refused the login of user {broker.user!r} (403); check name and password")
    if isinstance(cause, exceptions.ProbableAccessDeniedError) and _said_by_broker(cause) and not _is_passing(cause):
        return VirtualHostRefused(
            f"{broker} refused the virtual host {broker.virtual_host!r} to user {broker.user!r} (530); "
            f"create it or set permissions"
        )
    if isinstance(cause, exceptions.ConnectionClosed):
        if cause.reply_code in (402, 403, 530) and not _is_passing(cause):
            refusal = {403: AccessRefused, 530: VirtualHostRefused}.get(cause.reply_code, BrokerRefused)
            return refusal(f"{broker} closed the connection: {_said(cause)}")
        return ConnectionFailed(f"{broker} closed the connection: {_said(cause)}")
    if cause is not None and (text := handshake_problem(cause, broker)) is not None:
        return TLSFailed(text)
    if isinstance(cause, exceptions.AuthenticationError):
        return BrokerRefused(
            f"{broker} offers no login by {broker.mechanism.upper()}; it is switched on there with auth_mechanisms"
            + (" and the plugin rabbitmq_auth_mechanism_ssl" if broker.mechanism == "external" else "")
        )
    if isinstance(cause, exceptions.IncompatibleProtocolError):
        return ConnectionFailed(
            f"{broker} ended the connection before AMQP began; {suspicion(broker)} ({_first_line(cause)})"
        )
    if isinstance(cause, OSError):
        return ConnectionFailed(f"{broker}: {cause.strerror or cause}")
    if isinstance(cause, exceptions.AMQPHeartbeatTimeout):
        return ConnectionFailed(f"{broker} missed its heartbeats")
    if cause is None:
        return ConnectionFailed(f"{broker}: the connection was closed")
    return ConnectionFailed(f"{broker}: the connection failed: {_first_line(cause)}")


def is_reproach(error: BaseException | None) -> TypeGuard[exceptions.ConnectionClosedByBroker]:
    """Whether the broker closed the connection over what it was given: frames or fields that it does not accept (501 to
    505, 540 of AMQP 0-9-1, section 1.2), or 541, which it says when it stumbled."""
    codes = (501, 502, 503, 504, 505, 540, 541)
    return isinstance(error, exceptions.ConnectionClosedByBroker) and error.reply_code in codes


def channel_problem(error: BaseException) -> BrokerError:
    """Why the broker closed a channel: TopologyMismatch, BrokerRefused, or SendError when it may pass."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, exceptions.ChannelClosed):
        text = str(error.reply_text)
        found = _INEQUIVALENT.search(text)
        if found:
            return _mismatch(found)
        if error.reply_code in (403, 404, 406):
            return _refusal(error)(f"the broker refused: {_said(error)}")
        return SendError(f"the broker closed the channel: {_said(error)}")
    return SendError(f"the channel was lost: {_first_line(error)}")


def _refusal(error: exceptions.ChannelClosed) -> type[BrokerRefused]:
    if error.reply_code == 403:
        return AccessRefused
    return ExchangeMissing if error.reply_code == 404 and "no exchange" in error.reply_text else BrokerRefused


def refuses_all(error: BaseException | None) -> bool:
    """Whether every event for this exchange is refused like this one. A topic permission refuses some keys only."""
    return (
        isinstance(error, exceptions.ChannelClosed)
        and error.reply_code == 403
        and "access to exchange '" in str(error.reply_text)
    )


def _mismatch(found: re.Match[str]) -> TopologyMismatch:
    kind, name, argument = found["kind"], found["name"], found["argument"]
    there, wanted = _plain(found["current"]), _plain(found["received"])
    way_out = (
        "`domain-events topology plan MODULE` shows all that differs; `domain-events topology apply MODULE` makes it "
        "anew without losing an event"
        if kind == "queue"
        else "Use another exchange, or delete this one when nobody uses it any more"
    )
    problem = (TopologyMismatch if kind == "queue" else ExchangeMismatch)(
        f"{kind} {name!r} exists with another {argument!r}: asked for {wanted}, there is {there}. {way_out}"
    )
    problem.argument, problem.there, problem.wanted = argument, there, wanted
    return problem


def _plain(value: str) -> str:
    """Erlang's "the value '1000' of type 'signedint'" as 1000; an empty string as '', which is not "none"."""
    found = re.match(r"the value '(.*)' of type '.*'", value, re.DOTALL)
    return (found[1] if found else value.strip("'")) or "''"


def _root(error: BaseException | None) -> BaseException | None:
    """The innermost cause: pika wraps what happened up to three times."""
    seen = error
    while seen is not None:
        nested = getattr(seen, "exceptions", None)
        inner = nested[-1] if nested else getattr(seen, "exception", None)
        if inner is None and seen.args and isinstance(seen.args[0], BaseException):
            inner = seen.args[0]
        if not isinstance(inner, BaseException):
            return seen
        seen = inner
    return None


def _said_by_broker(error: BaseException) -> bool:
    """pika takes every end of a connection in mid-login for a refusal, also that of a broker that was killed then.

    RabbitMQ says what it refuses (the capability authentication_failure_close); pika keeps that as text only.
    """
    return "ConnectionClosedByBroker" in str(error)


def _is_passing(error: BaseException) -> bool:
    """A node that is still booting has no virtual hosts yet, or has them "down"; of a limit of connections, one may be
    free in a moment."""
    text = str(error)
    return "is down" in text or ("limit" in text and "reached" in text)


def _said(error: exceptions.ConnectionClosed | exceptions.ChannelClosed) -> str:
    return f"{error.reply_code} {one_line(str(error.reply_text), 300)}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return one_line(text.splitlines()[0], 300)
