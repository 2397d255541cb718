"""domain-events: receivers as the supervisor wants them; with "consume", in this process; with "declare", no more."""

import os
import sys

from first import handled

from domain_events import DomainEvent, Receiver

receiver = Receiver(os.environ["AMQP_URL"])


def handle(event: DomainEvent) -> None:
    handled()


for name in os.environ["BENCH_QUEUE"].split(","):
    receiver.register(handle, name, [name], queue_type="classic")

if __name__ == "__main__":
    if sys.argv[1] == "declare":
        receiver.declare()
    else:
        receiver.start_consuming()
