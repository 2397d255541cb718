"""domain-event-broker 3.0.2: a Subscriber, acks after the handler, which runs in a thread; prefetch is always 1.

`publish_domain_event` opens a connection for each event and has no confirms: an event may be lost unnoticed.
"""

from __future__ import annotations

import domain_event_broker

from benchmarks.speed.broker import DATA
from benchmarks.speed.sending import one_by_one
from benchmarks.speed.task import Counting, Task, run


def consume(task: Task) -> None:
    counting = Counting(task)

    def handle(event: domain_event_broker.DomainEvent) -> None:
        counting(event.data)

    subscriber = domain_event_broker.Subscriber(task.url)
    subscriber.connect()
    subscriber.register(handle, task.queue, [task.queue])
    subscriber.start_consuming()


def publish_one(task: Task) -> None:
    one_by_one(
        task,
        lambda: domain_event_broker.publish_domain_event(task.queue, DATA, "4711", connection_settings=task.url),
    )


if __name__ == "__main__":
    run({"consume": consume, "publish_one": publish_one})
