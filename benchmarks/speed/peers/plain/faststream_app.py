"""faststream: a subscriber of a RabbitBroker."""

import asyncio
import os

from faststream import FastStream
from faststream.rabbit import RabbitBroker, RabbitQueue
from first import handled

broker = RabbitBroker(os.environ["AMQP_URL"], logger=None)


@broker.subscriber(RabbitQueue(os.environ["BENCH_QUEUE"], durable=True, declare=False))
async def handle(event: dict):
    handled()


asyncio.run(FastStream(broker, logger=None).run())
