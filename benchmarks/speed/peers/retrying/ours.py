"""domain-events: the public API under the supervisor, with its defaults."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from benchmarks.speed.peers.retrying.notes import DELAY, QUEUE, URL, note
from domain_events import DomainEvent, Receiver, Retry, send_domain_events

ROOT = Path(__file__).resolve().parents[4]
COMMAND = [str(ROOT / "bin" / "domain-events-supervisor"), __name__]

receiver = Receiver(os.environ[URL])


@receiver.handles(os.environ[QUEUE], [f"{os.environ[QUEUE]}.#"], max_retries=1)
def handle(event: DomainEvent) -> None:
    note(event.data)
    if event.retries == 0:
        raise Retry(DELAY)


def send(events: Iterable[int]) -> None:
    for number in events:
        send_domain_events([(f"{os.environ[QUEUE]}.sent", number)], connection_settings=os.environ[URL])
