"""Sending an event after the transaction that it tells of is committed, and not at all when it is rolled back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from domain_events.errors import DomainEventError
from domain_events.events import DomainEvent
from domain_events.sending import TIMEOUT, Sender
from domain_events.settings import DEFAULT, ConnectionSettings, configured_brokers


def send_domain_event_on_commit(
    routing_key: str,
    data: Any,
    domain_object_id: str | int | UUID | None = None,
    uuid_string: str | None = None,
    timestamp: float | datetime | None = None,
    *,
    using: str | None = None,
    connection_settings: ConnectionSettings = DEFAULT,
    timeout: float = TIMEOUT,
    mandatory: bool = False,
    robust: bool = False,
) -> DomainEvent:
    """Make an event now, and send it once the outermost transaction of the database `using` is committed.

    `using`: an alias of DATABASES; None is "default". Outside of a transaction the event is sent at once. A rollback
    drops it, also one to a savepoint that was set before this call. What is sent is what `data` holds now.
    `timeout`: seconds, counted from the commit. The other arguments are those of `send_domain_event`.

    Returns the event. Raises at once, inside the transaction: InvalidName, UnsendableData, ConfigurationError. A
    SendError comes after the commit, out of the outermost atomic(): what was committed stays, the event is not sent
    (after SendTimeout: perhaps), and Django calls no further on_commit function of this transaction. With `robust`
    Django logs that error and goes on; see transaction.on_commit().
    """
    if not apps.is_installed("domain_events.django"):
        # The broker that settings.py names would be ignored, and the event sent to another one.
        raise ImproperlyConfigured("add 'domain_events.django' to INSTALLED_APPS to send domain events on commit")
    event = DomainEvent(routing_key, data, domain_object_id, uuid_string, timestamp)
    # A copy as the receivers will see it: nobody can change it until the commit.
    frozen = DomainEvent.from_json(event.encode())
    # What cannot succeed must fail while a rollback still helps.
    configured_brokers(connection_settings, "producer")
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
    sender = Sender(connection_settings)
    connection = transaction.get_connection(using)
    is_later = connection.in_atomic_block

    # A function and no partial: Django wants its name when it logs an error.
    def send_domain_event() -> None:
        try:
            sender.send(
                frozen.routing_key,
                frozen.data,
                frozen.domain_object_id,
                frozen.uuid_string,
                frozen.timestamp,
                timeout=timeout,
                mandatory=mandatory,
            )
        except DomainEventError as error:
            if is_later:
                error.add_note(
                    f"The transaction on the database {connection.alias!r} is committed; "
                    f"this is about its event {frozen.uuid_string} ({frozen.routing_key})."
                )
            raise

    transaction.on_commit(send_domain_event, using=using, robust=robust)
    return event
