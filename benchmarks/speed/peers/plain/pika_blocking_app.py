"""Bare pika: a BlockingConnection."""

import os

import pika
from first import handled


def on_message(channel, method, properties, body):
    handled()
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.basic_qos(prefetch_count=256)
channel.basic_consume(os.environ["BENCH_QUEUE"], on_message)
channel.start_consuming()
