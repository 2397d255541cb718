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


class Publication:
    """One message on its way. `done` is called once, in the I/O thread: None when confirmed, else the reason."""

    __slots__ = (
        "body",
        "done",
        "ever_sent",
        "exchange",
        "mandatory",
        "nacks",
        "needs",
        "properties",
        "returned",
        "routing_key",
        "sent_before",
        "state",
    )

    def __init__(
        self,
        *,
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
        self.state = State.WAITING
        self.ever_sent = False
        self.sent_before = False
        """To a connection or channel that was lost before it confirmed."""
        self.nacks = 0
        self.returned = False

    def finish(self, error: BrokerError | None) -> None:
        if self.state is not State.DONE:
            self.state = State.DONE
            # Who waits for it often keeps it: without the way back no cycle is left to the garbage collector.
            done, self.done = self.done, _nobody
            done(error)


def _nobody(error: BrokerError | None) -> None:
    """Has been told."""
