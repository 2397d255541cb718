"""aio-pika: a robust connection."""

import asyncio
import os

import aio_pika
from first import handled


async def on_message(message):
    async with message.process():
        handled()


async def main():
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=256)
    await (await channel.get_queue(os.environ["BENCH_QUEUE"])).consume(on_message)
    await asyncio.Future()


asyncio.run(main())
