"""What the broker did not take (`basic.nack`): when it is sent again, and when its owner is told.

A queue is full, with the overflow `reject-publish`; or a quorum queue has lost its leader and has not elected another
yet, which is over in a second. The broker does not say which.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from domain_events.errors import EventNacked
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication, State

PAUSES = (0.25, 0.75, 2.0)
"""Seconds before each further try. Not more: other queues that the event is bound to get it each time."""

LARGEST_CHANNEL_RATE = 5.0
"""New channels a second, at most."""

MOST_HOPELESS = 1000


class Nacks:
    """Belongs into the I/O thread."""

    def __init__(self, io: IOThread, submit: Callable[[Publication], None]) -> None:
        self._io = io
        self._submit = submit
        self._last = 0.0
        self._hopeless: set[str] = set()
        """Routing keys whose events were not taken after all tries, and none since: they are tried once."""

    def note(self, publication: Publication) -> None:
        """The broker did not take this one."""
        self._last = time.monotonic()
        if publication.state is State.DONE:
            return
        publication.nacks += 1
        if publication.nacks > len(PAUSES) or publication.routing_key in self._hopeless:
            if len(self._hopeless) < MOST_HOPELESS:
                self._hopeless.add(publication.routing_key)
            publication.finish(nacked())
            return
        publication.state = State.PAUSED
        # Without jitter: all that are refused together come back together, in their order.
        self._io.later(PAUSES[publication.nacks - 1], partial(self._try_again, publication))

    @property
    def any_hopeless(self) -> bool:
        """Whether it matters what is taken."""
        return bool(self._hopeless)

    def taken(self, publication: Publication) -> None:
        self._hopeless.discard(publication.routing_key)

    def have_spoiled(self, channel_since: float) -> bool:
        """Whether the channel that was opened then is to be replaced before anything else is sent.

        RabbitMQ 3.10 looks a queue's leader up once for each channel: when that one is dead, nothing is taken over this
        channel ever after (rabbitmq-server pull request 9241, in 3.11 and later).
        """
        return self._last > channel_since and time.monotonic() - channel_since > 1 / LARGEST_CHANNEL_RATE

    def _try_again(self, publication: Publication) -> None:
        if publication.state is State.PAUSED:
            publication.state = State.WAITING
            self._submit(publication)


def nacked() -> EventNacked:
    return EventNacked("the broker did not take the event (nack): a queue is full or failing")
