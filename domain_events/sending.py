"""Sending domain events: blocks until the broker has confirmed, or says why not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias
from uuid import UUID

from domain_events import tracing
from domain_events.errors import PartlySent, SendError
from domain_events.events import DomainEvent
from domain_events.names import check_app_id, check_exchange_name
from domain_events.observers import everybody
from domain_events.settings import DEFAULT, Brokers, ConnectionSettings, check_settings, configured_brokers
from domain_events.showing import printable
from domain_events.telling import ObservedSender, Sends
from domain_events.transport.line import Message
from domain_events.transport.sender import ConfirmedSender
from domain_events.transport.wire import event_properties

logger = logging.getLogger(__name__)

EXCHANGE = "domain-events"
TIMEOUT = 10.0
"""Seconds."""

Sendable: TypeAlias = DomainEvent | tuple[str, Any]
"""An event, or the routing key and data of one."""


class Sender:
    """Sends to one exchange over one confirmed connection, from any thread, also after a fork.

    Makes no connection until the first event. Usable as a context manager, which closes it; a closed sender that is
    used again connects again.
    """

    def __init__(
        self,
        connection_settings: ConnectionSettings = DEFAULT,
        exchange: str = EXCHANGE,
        *,
        app_id: str | None = None,
    ) -> None:
        """`app_id` becomes the AMQP property of that name; not given: the environment's DOMAIN_EVENT_APP_ID.

        Raises ConfigurationError for a malformed URL, InvalidName for a bad exchange or app_id.
        """
        self._settings = check_settings(connection_settings)
        self._exchange = check_exchange_name(exchange)
        app_id = app_id or os.environ.get("DOMAIN_EVENT_APP_ID")
        self._app_id = check_app_id(app_id) if app_id else None

    def send(
        self,
        routing_key: str,
        data: Any,
        domain_object_id: str | int | UUID | None = None,
        uuid_string: str | None = None,
        timestamp: float | datetime | None = None,
        *,
        timeout: float = TIMEOUT,
        mandatory: bool = False,
    ) -> DomainEvent:
        """Send one event and wait until the broker has confirmed it; see `send_domain_event`."""
        event = DomainEvent(routing_key, data, domain_object_id, uuid_string, timestamp)
        prepared = self._prepare([event], timeout, mandatory)
        return prepared.one(prepared.sender.send(prepared.messages, timeout) if prepared.sender else [])

    def send_many(
        self, events: Iterable[Sendable], *, timeout: float = TIMEOUT, mandatory: bool = False
    ) -> list[DomainEvent]:
        """Send many events with pipelined confirms; see `send_domain_events`."""
        prepared = self._prepare(map(_event_of, events), timeout, mandatory)
        return prepared.all(prepared.sender.send(prepared.messages, timeout) if prepared.sender else [])

    async def send_async(
        self,
        routing_key: str,
        data: Any,
        domain_object_id: str | int | UUID | None = None,
        uuid_string: str | None = None,
        timestamp: float | datetime | None = None,
        *,
        timeout: float = TIMEOUT,
        mandatory: bool = False,
    ) -> DomainEvent:
        """As `send`, for coroutines: the event loop goes on while the broker is waited for.

        When it is cancelled, the event may have been sent.
        """
        event = DomainEvent(routing_key, data, domain_object_id, uuid_string, timestamp)
        prepared = self._prepare([event], timeout, mandatory)
        return prepared.one(await prepared.sender.send_async(prepared.messages, timeout) if prepared.sender else [])

    async def send_many_async(
        self,
        events: Iterable[Sendable],
        *,
        timeout: float = TIMEOUT,
        mandatory: bool = False,
    ) -> list[DomainEvent]:
        """As `send_many`, for coroutines."""
        prepared = self._prepare(map(_event_of, events), timeout, mandatory)
        return prepared.all(await prepared.sender.send_async(prepared.messages, timeout) if prepared.sender else [])

    def close(self) -> None:
        """Leave the broker, when all events that other threads are sending are settled. Waits 2 s for that at most.

        Senders with the same broker and exchange share one connection, which the next event of any of them opens
        again.
        """
        brokers = configured_brokers(self._settings, "producer")
        sender = _senders.get((brokers, self._exchange)) if brokers is not None else None
        if sender is not None:
            sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, events: Iterable[DomainEvent], timeout: float, mandatory: bool) -> _Prepared:
        made = list(events)
        # Everything is written before anything is sent: data that cannot be written must not stop in the middle.
        messages = _Messages(made, [event.encode() for event in made], self._app_id, mandatory)
        if not timeout > 0:
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
        brokers = configured_brokers(self._settings, "producer")
        if brokers is None:
            for event in made:
                logger.debug("offline: event %s (%s) is not sent", printable(event.uuid_string), event.routing_key)
        sender: Sends | None = _confirmed_sender(brokers, self._exchange) if brokers is not None and made else None
        if sender is not None and (everybody or tracing.tracer is not None):
            sender = ObservedSender(sender, self._exchange, made, tracing.tracer)
            messages.headers = sender.headers
        return _Prepared(events=made, messages=messages, sender=sender)


class _Messages(Sequence[Message]):
    """Put together when they are asked for: of many the first ones are under way by then."""

    def __init__(self, events: list[DomainEvent], bodies: list[bytes], app_id: str | None, mandatory: bool) -> None:
        self._events = events
        self._bodies = bodies
        self._app_id = app_id
        self._mandatory = mandatory
        self.headers: Sequence[Mapping[str, str]] | None = None

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self[index : index + 1 or None][0]
        events, app_id, mandatory = self._events[index], self._app_id, self._mandatory
        messages = [
            Message(event.routing_key, event_properties(event, app_id), body, mandatory)
            for event, body in zip(events, self._bodies[index], strict=True)
        ]
        if self.headers is not None:
            for message, headers in zip(messages, self.headers[index], strict=True):
                if headers:  # no empty ones: they would be written
                    message.properties.headers = dict(headers)
        return messages


class _Prepared(NamedTuple):
    """Events that are about to be sent, and how what became of them is told."""

    events: list[DomainEvent]
    messages: Sequence[Message]
    sender: Sends | None
    """None: there is nothing to be sent."""

    def one(self, errors: Sequence[SendError | None]) -> DomainEvent:
        for error in errors:
            if error is not None:
                raise error
        return self.events[0]

    def all(self, errors: Sequence[SendError | None]) -> list[DomainEvent]:
        failed = [(event, error) for event, error in zip(self.events, errors, strict=False) if error is not None]
        if failed:
            raise PartlySent([event for event, _ in failed], [error for _, error in failed], len(self.events))
        return self.events


def send_domain_event(
    routing_key: str,
    data: Any,
    domain_object_id: str | int | UUID | None = None,
    uuid_string: str | None = None,
    timestamp: float | datetime | None = None,
    *,
    connection_settings: ConnectionSettings = DEFAULT,
    timeout: float = TIMEOUT,
    mandatory: bool = False,
) -> DomainEvent:
    """Send an event and wait until it is on disk in every queue that is bound for `routing_key`.

    `uuid_string` and `timestamp` (Unix seconds) are made when not given. `data` is what JSON can hold, and datetime,
    date, UUID, Decimal, Enum and dataclasses. Reconnects and sends again, with the same id, within `timeout` seconds.
    That no queue is bound is no error, unless `mandatory`: then it raises Unroutable.

    Returns the event. Raises InvalidName or UnsendableData before anything is sent, and SendError when the broker did
    not confirm: ConnectionFailed, BrokerRefused, EventTooLarge (all three: not sent), EventNacked (not in every queue),
    SendTimeout (perhaps sent).
    """
    return Sender(connection_settings).send(
        routing_key, data, domain_object_id, uuid_string, timestamp, timeout=timeout, mandatory=mandatory
    )


def send_domain_events(
    events: Iterable[Sendable],
    *,
    connection_settings: ConnectionSettings = DEFAULT,
    timeout: float = TIMEOUT,
    mandatory: bool = False,
) -> list[DomainEvent]:
    """Send many events, each a DomainEvent or a pair of routing key and data, without waiting for each one.

    All are confirmed when it returns. Raises PartlySent, which lists the unconfirmed ones, when some are not within
    `timeout` seconds (for all of them together); otherwise as `send_domain_event`.
    """
    return Sender(connection_settings).send_many(events, timeout=timeout, mandatory=mandatory)


_senders: dict[tuple[Brokers, str], ConfirmedSender] = {}


def _confirmed_sender(brokers: Brokers, exchange: str) -> ConfirmedSender:
    """One for each broker and exchange in a process. Without a lock, which a signal handler might find taken."""
    key = (brokers, exchange)
    return _senders.get(key) or _senders.setdefault(key, ConfirmedSender(brokers, exchange))


def _event_of(sendable: Sendable) -> DomainEvent:
    if isinstance(sendable, DomainEvent):
        return sendable
    if isinstance(sendable, (tuple, list)) and len(sendable) == 2:
        return DomainEvent(*sendable)
    raise TypeError(f"an event must be a DomainEvent or a pair of routing key and data, not {type(sendable).__name__}")
