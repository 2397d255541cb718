"""Registrations for tests of the pure rooms, without a Receiver."""

from __future__ import annotations

from typing import Any

from domain_events.events import DomainEvent
from domain_events.policy import Backoff
from domain_events.registration import Registration, make_registration
from domain_events.settings import DEFAULT


def handle(event: DomainEvent) -> None:
    """A handler."""


def register(
    handler: Any = handle, name: Any = "printer", binding_keys: Any = ("user.*",), **given: Any
) -> Registration:
    """With what `Receiver.register` passes when the user says nothing."""
    options: dict[str, Any] = {
        "dead_letter": True,
        "durable": True,
        "max_retries": 0,
        "retry_on": (),
        "backoff": Backoff(),
        "timeout": None,
        "processes": 1,
        "prefetch": None,
        "queue_type": "quorum",
        "threads": 1,
        "concurrency": None,
        "single_active": False,
        "exchange": "domain-events",
        "connection_settings": DEFAULT,
    }
    return make_registration(handler, name, binding_keys, **(options | given))
