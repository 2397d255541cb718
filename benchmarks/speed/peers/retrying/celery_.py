"""Celery: late acks, confirmed publishing, one prefork process, the task retries itself with a countdown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from celery import Celery

from benchmarks.speed.peers.retrying.notes import DELAY, QUEUE, URL, note

COMMAND = ["-m", "celery", "--app", __name__, "worker", "--concurrency", "1", "--pool", "prefork", "--queues"]
COMMAND += [os.environ[QUEUE], "--loglevel", "WARNING"]

app = Celery(broker=os.environ[URL])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_create_missing_queue_type="classic",
    task_default_queue=os.environ[QUEUE],
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
)


@app.task(bind=True, name="handle", max_retries=1)
def handle(self: Any, number: int) -> None:
    note(number)
    if self.request.retries == 0:
        raise self.retry(countdown=DELAY)


def send(events: Iterable[int]) -> None:
    for number in events:
        handle.delay(number)
