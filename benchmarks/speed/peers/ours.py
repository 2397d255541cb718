"""domain-events: a receiver under the supervisor, all defaults on; a `Sender`, which always waits for confirms."""

from __future__ import annotations

from benchmarks.speed.broker import DATA
from benchmarks.speed.sending import from_threads, many, one_by_one
from benchmarks.speed.task import Counting, Task, from_environment, run
from domain_events import DomainEvent, Receiver, Sender

task = from_environment()
counting = Counting(task)
receiver = Receiver(task.url)


@receiver.handles(task.queue, [task.queue], queue_type=task.queue_type, prefetch=task.prefetch)
def handle(event: DomainEvent) -> None:
    counting(event.data)


def declare(_task: Task) -> None:
    receiver.declare()


def publish_one(task: Task) -> None:
    with Sender(task.url) as sender:
        one_by_one(task, lambda: sender.send(task.queue, DATA, "4711"))


def publish_many(task: Task) -> None:
    with Sender(task.url) as sender:
        many(task, lambda count: sender.send_many(DomainEvent(task.queue, DATA, "4711") for _ in range(count)))


def publish_threads(task: Task) -> None:
    with Sender(task.url) as sender:
        from_threads(task, lambda: sender.send(task.queue, DATA, "4711"))


if __name__ == "__main__":
    verbs = (declare, publish_one, publish_many, publish_threads)
    run({verb.__name__: verb for verb in verbs})
