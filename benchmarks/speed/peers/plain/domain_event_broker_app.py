"""domain-event-broker 3.0.2: a Subscriber."""

import os

from domain_event_broker import Subscriber
from first import handled

subscriber = Subscriber(os.environ["AMQP_URL"])
subscriber.register(lambda event: handled(), os.environ["BENCH_QUEUE"], [os.environ["BENCH_QUEUE"]])
subscriber.start_consuming()
