"""aio-pika: a robust connection; `message.process()` acks after the handler; its channels confirm by default."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from benchmarks.speed.broker import EXCHANGE, body
from benchmarks.speed.sending import many_async, one_by_one_async
from benchmarks.speed.task import DEFAULT_PREFETCH, Counting, Task, run

WINDOW = 1000


async def consume(task: Task) -> None:
    counting = Counting(task)

    async def on_message(message: AbstractIncomingMessage) -> None:
        async with message.process():
            counting(json.loads(message.body)["data"])

    connection = await aio_pika.connect_robust(task.url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=task.prefetch or DEFAULT_PREFETCH)
    queue = await channel.get_queue(task.queue)
    await queue.consume(on_message)
    await asyncio.Future()


async def publish_one(task: Task) -> None:
    connection = await aio_pika.connect_robust(task.url)
    async with connection:
        await one_by_one_async(task, await _sender(task, await connection.channel()))


async def publish_many(task: Task) -> None:
    connection = await aio_pika.connect_robust(task.url)
    async with connection:
        await many_async(task, await _sender(task, await connection.channel()), window=WINDOW)


async def _sender(task: Task, channel: AbstractChannel) -> Callable[[], Awaitable[object]]:
    exchange = await channel.get_exchange(EXCHANGE)

    def send() -> Awaitable[object]:
        message = aio_pika.Message(
            body(task.queue),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        return exchange.publish(message, task.queue)

    return send


if __name__ == "__main__":
    run({"consume": consume, "publish_one": publish_one, "publish_many": publish_many})
