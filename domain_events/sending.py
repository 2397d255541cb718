"""Sending domain events: blocks until the broker has confirmed, or says why not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import UUID

from domain_events.errors import PartlySent, SendError
from domain_events.events import DomainEvent
from domain_events.names import check_app_id, check_exchange_name
from domain_events.settings import DEFAULT, Broker, ConnectionSettings, configured_brokers, parse_brokers
from domain_events.transport.sender import ConfirmedSender, Message
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
        if connection_settings is not DEFAULT:
            parse_brokers(connection_settings, "connection_settings")
        self._settings = connection_settings
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
        (error,) = self._send([event], timeout, mandatory)
        if error is not None:
            raise error
        return event

    def send_many(
        self, events: Iterable[Sendable], *, timeout: float = TIMEOUT, mandatory: bool = False
    ) -> list[DomainEvent]:
        """Send many events with pipelined confirms; see `send_domain_events`."""
        made = [event if isinstance(event, DomainEvent) else _event_of(event) for event in events]
        errors = self._send(made, timeout, mandatory)
        failed = [(event, error) for event, error in zip(made, errors, strict=True) if error is not None]
        if failed:
            raise PartlySent([event for event, _ in failed], [error for _, error in failed], len(made))
        return made

    def close(self) -> None:
        """Leave the broker. Senders with the same broker and exchange share one connection, which the next event
        of any of them opens again."""
        brokers = configured_brokers(self._settings, "producer")
        with _lock:
            sender = _senders.get((brokers, self._exchange)) if brokers is not None else None
        if sender is not None:
            sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, events: Sequence[DomainEvent], timeout: float, mandatory: bool) -> list[SendError | None]:
        # Everything is written before anything is sent: data that cannot be written must not stop in the middle.
        messages = [
            Message(event.routing_key, event_properties(event, self._app_id), event.encode(), mandatory)
            for event in events
        ]
        if not timeout > 0:
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
        brokers = configured_brokers(self._settings, "producer")
        if brokers is None:
            for event in events:
                logger.debug("offline: event %s (%s) is not sent", event.uuid_string, event.routing_key)
            return [None] * len(events)
        return _confirmed_sender(brokers, self._exchange).send(messages, timeout) if messages else []


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
    not confirm: ConnectionFailed, BrokerRefused, EventTooLarge (all three: not sent), SendTimeout (perhaps sent).
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


_lock = threading.Lock()
_senders: dict[tuple[tuple[Broker, ...] | None, str], ConfirmedSender] = {}


def _confirmed_sender(brokers: tuple[Broker, ...], exchange: str) -> ConfirmedSender:
    """One for each broker and exchange in a process."""
    with _lock:
        key = (brokers, exchange)
        if key not in _senders:
            _senders[key] = ConfirmedSender(brokers, exchange)
        return _senders[key]


def _event_of(pair: object) -> DomainEvent:
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return DomainEvent(*pair)
    raise TypeError(f"an event must be a DomainEvent or a pair of routing key and data, not {type(pair).__name__}")


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
