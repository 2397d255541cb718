"""Domain events over RabbitMQ: send, receive, retry and dead-letter them, under a supervisor."""

from importlib import import_module
from typing import TYPE_CHECKING

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
from domain_events.version import __version__

if TYPE_CHECKING:
    from domain_events.events import DomainEvent
    from domain_events.lifecycle import HookFailed, before_fork, child_started, child_stopping
    from domain_events.observers import NullObserver, Observer, observe
    from domain_events.policy import Backoff, DeadLetter, Retry
    from domain_events.receiver import Receiver
    from domain_events.sending import Sender, send_domain_event, send_domain_events
    from domain_events.settings import DEFAULT

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
    "observe",
    "send_domain_event",
    "send_domain_events",
]

# Imported when first asked for: who sends does not pay for what receives, nor the commands of operators for pika.
_LATER = {
    "DomainEvent": "events",
    "HookFailed": "lifecycle",
    "before_fork": "lifecycle",
    "child_started": "lifecycle",
    "child_stopping": "lifecycle",
    "NullObserver": "observers",
    "Observer": "observers",
    "observe": "observers",
    "Backoff": "policy",
    "DeadLetter": "policy",
    "Retry": "policy",
    "Receiver": "receiver",
    "Sender": "sending",
    "send_domain_event": "sending",
    "send_domain_events": "sending",
    "DEFAULT": "settings",
}

if not TYPE_CHECKING:  # it would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
