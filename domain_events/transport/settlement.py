"""What becomes of a delivery, as the broker will be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pika import BasicProperties

from domain_events.transport.topology import Queue


@dataclass(frozen=True, slots=True)
class Ack:
    """The event is done."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The event was not begun: back into the queue."""


class Copy(NamedTuple):
    """The event goes on in another queue: publish it there, and ack when that is confirmed."""

    queue: Queue
    properties: BasicProperties
    confirmed: Callable[[], object] | None = None
    """Called in the I/O thread when the broker has the copy; cheap, and raises nothing."""


Settlement: TypeAlias = Ack | GiveBack | Copy

ACK = Ack()
"""There is only one kind, and one is needed for every event."""
