"""kombu: a ConsumerMixin."""

import os

from first import handled
from kombu import Connection, Queue
from kombu.mixins import ConsumerMixin


class Consumers(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, consumer, channel):
        queue = Queue(os.environ["BENCH_QUEUE"], no_declare=True)
        return [consumer([queue], callbacks=[self.on_event], accept=["json"], prefetch_count=256)]

    def on_event(self, event, message):
        handled()
        message.ack()


with Connection(os.environ["AMQP_URL"]) as connection:
    Consumers(connection).run()
