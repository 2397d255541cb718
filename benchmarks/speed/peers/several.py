"""domain-events: several receivers under one supervisor, each with a queue and a task of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from benchmarks.speed.task import SEVERAL_TASKS, Counting, Task
from domain_events import DomainEvent, Receiver

tasks = [Task(**fields) for fields in json.loads(os.environ[SEVERAL_TASKS])]
receiver = Receiver(tasks[0].url)


def handler(counting: Counting) -> Callable[[DomainEvent], None]:
    return lambda event: counting(event.data)


for task in tasks:
    receiver.register(handler(Counting(task)), task.queue, [task.queue], queue_type=task.queue_type)
