"""Everything that can go wrong, as one tree.

Foreign errors are translated where they enter: pika's in `transport`, the operating system's in `supervisor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from domain_events.showing import printable

if TYPE_CHECKING:
    from domain_events.events import DomainEvent


class DomainEventError(Exception):
    """The root of all errors of this library."""


class ConfigurationError(DomainEventError, ValueError):
    """A setting, a flag or a broker URL that cannot be used. Names the setting; never holds a password."""


class InvalidName(DomainEventError, ValueError):
    """A routing key, binding key or receiver name that the broker or this library would refuse."""


class UnsendableData(DomainEventError, TypeError, ValueError):
    """`data` holds something that cannot be written as JSON. Nothing was sent."""


class MalformedEvent(DomainEventError, ValueError):
    """Bytes that are no domain event: not JSON, not an object, no routing key or no data."""


class BrokerError(DomainEventError):
    """The broker could not be used. Also what a receiver raises when it cannot go on."""


class TopologyMismatch(ConfigurationError, BrokerError):
    """A queue or exchange exists with other arguments than the ones asked for (AMQP 406).

    Names the object, the argument, both values and the way out. `argument`, `there` and `wanted` are texts.
    """

    argument = there = wanted = ""


class NoSuchReceiver(BrokerError):
    """Nothing at the broker has this name."""


class SendError(BrokerError):
    """An event was not confirmed. Unless a subclass says otherwise it may or may not be in the queues."""


class SendTimeout(SendError, TimeoutError):
    """No confirm came within `timeout`. The event may have arrived: sending it again may duplicate it."""


class ConnectionFailed(SendError, ConnectionError):
    """No broker could be reached within `timeout`. The event was not sent."""


class BrokerBlocked(ConnectionFailed):
    """The broker takes no events at the moment, as it is short of memory or disk. The event was not sent."""


class TLSFailed(ConnectionFailed):
    """TLS could not be agreed on: a certificate that is not trusted, or no TLS at all. The event was not sent."""


class Unroutable(SendError):
    """`mandatory=True` and no queue is bound for the routing key. The event is in no queue."""


class EventNacked(SendError):
    """The broker did not take the event (`basic.nack`): a queue that is bound for it is full, with the overflow
    `reject-publish`, or is failing. That queue does not have it; others that are bound for it may."""


class BrokerRefused(SendError):
    """The broker said no: login or permission (403), virtual host, missing or mismatched exchange (404, 406).

    Trying again without a change of configuration cannot help. The event was not sent, unless the message says that
    an earlier attempt may have arrived.
    """


class LoginRefused(BrokerRefused):
    """Wrong password, no such user, or one that may not log in from here."""


class VirtualHostRefused(BrokerRefused):
    """No such virtual host, or one that this user may not enter."""


class AccessRefused(BrokerRefused):
    """This user has no permission to write to the exchange, or to declare what is not there (403)."""


class ExchangeMissing(BrokerRefused):
    """The exchange does not exist (404), and this user may not declare it."""


class ExchangeMismatch(BrokerRefused, TopologyMismatch):
    """The exchange exists with another type or other arguments (406)."""


class EventTooLarge(SendError, ValueError):
    """The event is larger than the broker's `max_message_size`. It was not sent."""


class PartlySent(SendError):
    """Of several events some were not confirmed.

    `unconfirmed` lists them in the order given; `causes` holds one error for each of them.
    """

    def __init__(self, unconfirmed: Sequence[DomainEvent], causes: Sequence[SendError], total: int) -> None:
        self.unconfirmed = list(unconfirmed)
        self.causes = list(causes)
        self.total = total
        super().__init__(
            f"{len(self.unconfirmed)} of {total} events were not confirmed; the first: "
            f"{self.unconfirmed[0].routing_key} {printable(self.unconfirmed[0].uuid_string)}: {self.causes[0]}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is made again from its text alone, and cannot come out of a process pool.
        return type(self), (self.unconfirmed, self.causes, self.total)
