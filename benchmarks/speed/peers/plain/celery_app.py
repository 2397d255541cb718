"""Celery: a task for its worker; run as a program, it sends one event."""

import os

from celery import Celery
from first import handled

app = Celery("bench", broker=os.environ["AMQP_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_create_missing_queue_type="classic",
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_ignore_result=True,
)


@app.task(name="handle")
def handle(event):
    handled()


if __name__ == "__main__":
    handle.delay({})
