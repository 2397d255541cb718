"""dramatiq: `dramatiq MODULE --processes 1 --threads 1`, its default middleware; acks after the actor has returned.

Its own message format, with the event as the argument. Sending with `confirm_delivery=True`, which is off by default;
nothing is pipelined. Prefetch is its default, twice the threads, or what its variable dramatiq_queue_prefetch says. It
has no option for quorum queues: the method that makes their arguments is overridden.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.speed.broker import event
from benchmarks.speed.sending import one_by_one, pace
from benchmarks.speed.task import Counting, Task, from_environment, run


class Broker(RabbitmqBroker):
    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._build_queue_arguments(queue_name)
        return arguments if task.queue_type == "classic" else {**arguments, "x-queue-type": task.queue_type}


task = from_environment()
counting = Counting(task)
dramatiq.set_broker(Broker(url=task.url, confirm_delivery=True))


@dramatiq.actor(queue_name=task.queue)
def handle(event: dict[str, Any]) -> None:
    counting(event["data"])


def declare(task: Task) -> None:
    dramatiq.get_broker().declare_queue(task.queue, ensure=True)


def fill(task: Task) -> None:
    # A quorum queue may lose what is not confirmed when the channel is closed; a classic one takes it all.
    filling = Broker(url=task.url, confirm_delivery=task.queue_type == "quorum")
    for _ in range(task.warmup + task.count):
        filling.enqueue(handle.message(event(task.queue)))


def publish_one(task: Task) -> None:
    one_by_one(task, lambda: handle.send(event(task.queue)))


def paced(task: Task) -> None:
    unconfirmed = Broker(url=task.url)
    pace(task, lambda data: unconfirmed.enqueue(handle.message(event(task.queue, data))))


if __name__ == "__main__":
    run({"declare": declare, "fill": fill, "publish_one": publish_one, "pace": paced})
