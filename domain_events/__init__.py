"""Domain events over RabbitMQ: send, receive, retry and dead-letter them, under a supervisor."""

from domain_events.errors import (
    AccessRefused,
    BrokerBlocked,
    BrokerError,
    BrokerRefused,
    ConfigurationError,
    ConnectionFailed,
    DomainEventError,
    EventNacked,
    EventTooLarge,
    ExchangeMismatch,
    ExchangeMissing,
    InvalidName,
    LoginRefused,
    MalformedEvent,
    PartlySent,
    SendError,
    SendTimeout,
    TLSFailed,
    TopologyMismatch,
    Unroutable,
    UnsendableData,
    VirtualHostRefused,
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
    "AccessRefused",
    "Backoff",
    "BrokerBlocked",
    "BrokerError",
    "BrokerRefused",
    "ConfigurationError",
    "ConnectionFailed",
    "DeadLetter",
    "DomainEvent",
    "DomainEventError",
    "EventNacked",
    "EventTooLarge",
    "ExchangeMismatch",
    "ExchangeMissing",
    "HookFailed",
    "InvalidName",
    "LoginRefused",
    "MalformedEvent",
    "NullObserver",
    "Observer",
    "PartlySent",
    "Receiver",
    "Retry",
    "SendError",
    "SendTimeout",
    "Sender",
    "TLSFailed",
    "TopologyMismatch",
    "Unroutable",
    "UnsendableData",
    "VirtualHostRefused",
    "__version__",
    "before_fork",
    "child_started",
    "child_stopping",
    "send_domain_event",
    "send_domain_events",
]
