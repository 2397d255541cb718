"""celery: a worker with `task_acks_late`, so that the ack comes after the task; no result backend.

Its own message format, with the event as the argument. Sending with `confirm_publish`; nothing is pipelined. The
prefetch multiplier is what its optimization guide recommends for many short tasks.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from benchmarks.speed.broker import event
from benchmarks.speed.sending import one_by_one, pace
from benchmarks.speed.task import Counting, Task, from_environment, run

PREFETCH = 64

task = from_environment()
counting = Counting(task)
app = Celery("bench", broker=task.url, set_as_current=True)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue=task.queue,
    task_queues=[Queue(task.queue, routing_key=task.queue)],
    task_default_routing_key=task.queue,
    worker_prefetch_multiplier=task.prefetch or PREFETCH,
    worker_hijack_root_logger=False,
)


@app.task(name="bench.handle")
def handle(event: dict[str, Any]) -> None:
    counting(event["data"])


def declare(_task: Task) -> None:
    with app.connection_for_write() as connection:
        app.amqp.queues[task.queue].bind(connection.default_channel).declare()


def fill(task: Task) -> None:
    # Fit for classic queues only: a quorum queue may lose what is not confirmed when the channel is closed.
    app.conf.broker_transport_options = {}
    for _ in range(task.warmup + task.count):
        handle.apply_async((event(task.queue),))


def publish_one(task: Task) -> None:
    one_by_one(task, lambda: handle.apply_async((event(task.queue),)))


def paced(task: Task) -> None:
    app.conf.broker_transport_options = {}
    pace(task, lambda data: handle.apply_async((event(task.queue, data),)))


if __name__ == "__main__":
    run({"declare": declare, "fill": fill, "publish_one": publish_one, "pace": paced})
