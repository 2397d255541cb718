"""kombu on py-amqp: a ConsumerMixin, acks after the handler; sending with `confirm_publish`, which cannot pipeline."""

from __future__ import annotations

from typing import Any

from kombu import Connection, Consumer, Exchange, Message, Queue
from kombu.mixins import ConsumerMixin

from benchmarks.speed.broker import EXCHANGE, event
from benchmarks.speed.sending import one_by_one
from benchmarks.speed.task import DEFAULT_PREFETCH, Counting, Task, run


class _Consumers(ConsumerMixin):
    def __init__(self, connection: Connection, task: Task) -> None:
        self.connection = connection
        self._task = task
        self._counting = Counting(task)

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:
        queue = Queue(self._task.queue, no_declare=True)
        prefetch = self._task.prefetch or DEFAULT_PREFETCH
        return [consumer([queue], callbacks=[self._on_event], accept=["json"], prefetch_count=prefetch)]

    def _on_event(self, event: dict[str, Any], message: Message) -> None:
        self._counting(event["data"])
        message.ack()


def consume(task: Task) -> None:
    with Connection(task.url) as connection:
        _Consumers(connection, task).run()


def publish_one(task: Task) -> None:
    exchange = Exchange(EXCHANGE, "topic", durable=True)
    with Connection(task.url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer(serializer="json")
        one_by_one(
            task,
            lambda: producer.publish(
                event(task.queue), exchange=exchange, routing_key=task.queue, declare=[exchange], delivery_mode=2
            ),
        )


if __name__ == "__main__":
    run({"consume": consume, "publish_one": publish_one})
