"""The seam for traces: what goes along with an event that is sent, and what is around one that is handled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from domain_events.events import DomainEvent

LONGEST_TEXT = 8192
"""Characters of a header that can be trace context. W3C Baggage, section 3.3.2, asks for as much."""


class Departure(NamedTuple):
    """Events on their way to the broker."""

    headers: Sequence[Mapping[str, str]]
    """What is written into the AMQP headers of each."""
    done: Callable[[Sequence[BaseException | None]], object]
    """Called once, with why each event is not confirmed; None where it is."""


class Arrival(NamedTuple):
    """An event that is about to be handled, or given up without it. All text may come from a hostile sender."""

    receiver: str
    exchange: str
    routing_key: str
    event_id: str | None
    retries: int
    delivery_tag: int
    headers: Mapping[str, str]
    """Those of its AMQP headers that can be trace context."""


class Tracer(Protocol):
    """May be called in any thread. Raises nothing: the event is not to blame."""

    def departs(self, exchange: str, events: Sequence[DomainEvent]) -> Departure:
        """These are about to be sent, in this thread or task."""

    def arrives(self, arrival: Arrival) -> AbstractContextManager[None]:
        """Around the handler and all that observers are told of the event, in a context of the event's own.

        May be left in a process that the handler has forked.
        """


tracer: Tracer | None = None
"""Who traces this process, and those that are forked from it. Consumers ask when they begin, senders each time."""


def trace_with(one: Tracer | None) -> None:
    global tracer
    tracer = one


def context_of(headers: Mapping[Any, Any] | None) -> dict[str, str]:
    """What can be trace context: printable ASCII that is not too long. The rest is nobody's business here."""
    return {
        name: value
        for name, value in (headers or {}).items()
        if type(name) is str
        and type(value) is str
        and len(value) <= LONGEST_TEXT
        and value.isascii()
        and value.isprintable()
    }
