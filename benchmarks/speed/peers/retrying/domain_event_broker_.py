"""domain-event-broker 3.0.2: its subscriber and its Retry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from domain_event_broker import DomainEvent, Publisher, Retry, Subscriber

from benchmarks.speed.peers.retrying.notes import DELAY, QUEUE, URL, note

COMMAND = ["-m", __name__]


def handle(event: DomainEvent) -> None:
    note(event.data)
    if event.retries == 0:
        raise Retry(DELAY)


def send(events: Iterable[int]) -> None:
    publisher = Publisher(os.environ[URL])
    for number in events:
        name = f"{os.environ[QUEUE]}.sent"
        publisher.publish(json.dumps(DomainEvent(name, number).event_data).encode(), name)
    publisher.disconnect()


if __name__ == "__main__":
    subscriber = Subscriber(os.environ[URL])
    subscriber.register(handle, os.environ[QUEUE], [f"{os.environ[QUEUE]}.#"], dead_letter=True, max_retries=1)
    subscriber.start_consuming()
