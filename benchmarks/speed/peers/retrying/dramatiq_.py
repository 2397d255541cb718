"""dramatiq: its command, one process with its usual 8 threads; confirms; an actor that says when to call it again."""

from __future__ import annotations

import os
from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import CurrentMessage

from benchmarks.speed.peers.retrying.notes import DELAY, QUEUE, URL, note

COMMAND = ["-m", "dramatiq", "--processes", "1", "--threads", "8", __name__]

broker = RabbitmqBroker(url=os.environ[URL], confirm_delivery=True)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ[QUEUE], max_retries=1)
def handle(number: int) -> None:
    note(number)
    message = CurrentMessage.get_current_message()
    if message is not None and not message.options.get("retries"):
        raise dramatiq.Retry("the first call fails", delay=round(DELAY * 1000))


def send(events: Iterable[int]) -> None:
    for number in events:
        handle.send(number)
