"""Bare pika: a SelectConnection."""

import os

import pika
from first import handled


def on_message(channel, method, properties, body):
    handled()
    channel.basic_ack(method.delivery_tag)


def on_channel(channel):
    channel.basic_qos(
        prefetch_count=256, callback=lambda frame: channel.basic_consume(os.environ["BENCH_QUEUE"], on_message)
    )


pika.SelectConnection(
    pika.URLParameters(os.environ["AMQP_URL"]),
    on_open_callback=lambda connection: connection.channel(on_open_callback=on_channel),
).ioloop.start()
