"""Domain events over RabbitMQ: send, receive, retry and dead-letter them, under a supervisor."""

from domain_events.errors import (
    BrokerError,
    BrokerRefused,
    ConfigurationError,
    ConnectionFailed,
    DomainEventError,
    EventTooLarge,
    InvalidName,
    MalformedEvent,
    PartlySent,
    SendError,
    SendTimeout,
    TopologyMismatch,
    Unroutable,
    UnsendableData,
)
from domain_events.events import DomainEvent
from domain_events.lifecycle import HookFailed, before_fork, child_started, child_stopping
from domain_events.observers import NullObserver, Observer
from domain_events.policy import Backoff, DeadLetter, Retry
from domain_events.receiver import Receiver
from domain_events.sending import Sender, send_domain_event, send_domain_events
from domain_events.settings import DEFAULT
from domain_events.version import __version__

__all__ = [
    "DEFAULT",
    "Backoff",
    "BrokerError",
    "BrokerRefused",
    "ConfigurationError",
    "ConnectionFailed",
    "DeadLetter",
    "DomainEvent",
    "DomainEventError",
    "EventTooLarge",
    "HookFailed",
    "InvalidName",
    "MalformedEvent",
    "NullObserver",
    "Observer",
    "PartlySent",
    "Receiver",
    "Retry",
    "SendError",
    "SendTimeout",
    "Sender",
    "TopologyMismatch",
    "Unroutable",
    "UnsendableData",
    "__version__",
    "before_fork",
    "child_started",
    "child_stopping",
    "send_domain_event",
    "send_domain_events",
]
