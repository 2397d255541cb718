"""dramatiq: an actor for its command; run as a program, it sends one event."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from first import handled

dramatiq.set_broker(RabbitmqBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def handle(event):
    handled()


if __name__ == "__main__":
    handle.send({})
