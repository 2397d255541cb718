"""faststream: a subscriber of its RabbitBroker, acks after the handler (its default policy); confirms by default."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faststream import FastStream
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from benchmarks.speed.broker import EXCHANGE, event
from benchmarks.speed.sending import many_async, one_by_one_async
from benchmarks.speed.task import DEFAULT_PREFETCH, Counting, Task, run

WINDOW = 1000
EVENTS = RabbitExchange(EXCHANGE, type=ExchangeType.TOPIC, durable=True)


def consume(task: Task) -> None:
    counting = Counting(task)
    broker = RabbitBroker(task.url, logger=None)
    queue = RabbitQueue(task.queue, durable=True, declare=False)
    channel = Channel(prefetch_count=task.prefetch or DEFAULT_PREFETCH)

    @broker.subscriber(queue, channel=channel)
    async def handle(event: dict[str, Any]) -> None:
        counting(event["data"])

    asyncio.run(FastStream(broker, logger=None).run())


async def publish_one(task: Task) -> None:
    async with RabbitBroker(task.url, logger=None) as broker:
        await one_by_one_async(task, _sender(task, broker))


async def publish_many(task: Task) -> None:
    async with RabbitBroker(task.url, logger=None) as broker:
        await many_async(task, _sender(task, broker), window=WINDOW)


def _sender(task: Task, broker: RabbitBroker) -> Callable[[], Awaitable[object]]:
    return lambda: broker.publish(event(task.queue), exchange=EVENTS, routing_key=task.queue, persist=True)


if __name__ == "__main__":
    run({"consume": consume, "publish_one": publish_one, "publish_many": publish_many})
