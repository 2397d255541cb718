"""One message on its way to the broker."""

from __future__ import annotations

import enum
from collections.abc import Callable

from pika import BasicProperties

from domain_events.errors import BrokerError
from domain_events.transport.topology import Queue


class State(enum.Enum):
    WAITING = "waiting"  # not given to the broker, or to a connection that is lost since
    IN_FLIGHT = "in flight"  # given to the broker, no confirm yet
    PAUSED = "paused"  # the broker did not take it; it will be submitted again
    DONE = "done"


_WAITING, _DONE = State.WAITING, State.DONE  # to look a member up takes as long as to set three attributes


class Publication:
    """One message on its way. `done` is called once, in the I/O thread: None when confirmed, else the reason."""

    __slots__ = (
        "attempts",
        "body",
        "done",
        "error",
        "exchange",
        "mandatory",
        "nacks",
        "needs",
        "properties",
        "returned",
        "routing_key",
        "state",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: BasicProperties,
        body: bytes,
        mandatory: bool,
        done: Callable[[BrokerError | None], None],
        needs: Queue | None = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.mandatory = mandatory
        self.done = done
        self.needs = needs
        """A queue that is declared before, once for each connection."""
        self.state = _WAITING
        self.error: BrokerError | None = None
        """Once it is done: what `done` was told."""
        self.attempts = 0
        """How often it was given to the broker."""
        self.nacks = 0
        self.returned = False

    @property
    def was_sent_before(self) -> bool:
        """And not confirmed, for the connection or channel was lost: it may have arrived."""
        return self.attempts > (self.state is State.IN_FLIGHT)

    def finish(self, error: BrokerError | None) -> None:
        if self.state is not _DONE:
            self.error = error
            self.state = _DONE
            # Who waits for it often keeps it: without the way back no cycle is left to the garbage collector.
            done, self.done = self.done, _nobody
            done(error)


def _nobody(error: BrokerError | None) -> None:
    """Has been told."""
