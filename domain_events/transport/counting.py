"""How many events are ready in queues: asked on one channel, as long as the broker leaves it open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pika import exceptions
from pika.channel import Channel

from domain_events.transport.script import Steps
from domain_events.transport.session import Another


@dataclass(frozen=True, slots=True)
class Counts:
    """`ready`: of those queues that have told it. `missing`: there are no such queues."""

    ready: Mapping[str, int]
    missing: frozenset[str]


def count_ready(another: Another, names: Iterable[str]) -> Steps[Counts]:
    """One that does not tell (its node is down, this login may not ask) holds up none of the others."""
    ready: dict[str, int] = {}
    missing: set[str] = set()
    channel: Channel | None = None
    for name in names:
        if channel is None:
            channel = yield another()
        asked = channel
        try:
            answer: Any = yield lambda done, name=name, asked=asked: asked.queue_declare(  # type: ignore[misc]
                name, passive=True, callback=done
            )
        except exceptions.ChannelClosedByBroker as error:
            channel = None
            # Also 404: "home node ... is down". That queue is there.
            if error.reply_code == 404 and "no queue" in error.reply_text:
                missing.add(name)
        else:
            ready[name] = answer.method.message_count
    if channel is not None:
        channel.close()
    return Counts(ready, frozenset(missing))
