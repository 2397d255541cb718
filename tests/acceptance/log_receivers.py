"""Receivers whose handlers log into rotating files. How much stands in the event."""

import logging
import os
from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler

from domain_events import DomainEvent, Receiver

PREFIX = os.environ["TEST_PREFIX"]
FOLDER = os.environ["TEST_FOLDER"]

log = logging.getLogger("app")
audit = logging.getLogger("app.audit")
receiver = Receiver()


class Stamped(logging.Formatter):
    """Who has logged it, and who writes it."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.process} {os.getpid()} {record.getMessage()}"


by_size = RotatingFileHandler(f"{FOLDER}/size", maxBytes=100_000, backupCount=500)
by_time = TimedRotatingFileHandler(f"{FOLDER}/time", when="S", backupCount=500)
for handler in (by_size, by_time):
    handler.setFormatter(Stamped())
logging.getLogger().addHandler(by_size)
audit.addHandler(by_time)


@receiver.handles(f"{PREFIX}loud", f"{PREFIX}.loud.#", processes=4, prefetch=2)
def loud(event: DomainEvent) -> None:
    for line in range(event.data["lines"]):
        audit.info("loud %d %d", event.data["n"], line)
    # Not a record: that could be dropped.
    with open(f"{FOLDER}/done", "a") as file:
        file.write(f"{event.data['n']}\n")


@receiver.handles(f"{PREFIX}quiet", f"{PREFIX}.quiet.#")
def quiet(event: DomainEvent) -> None:
    log.info("quiet %d", event.data["n"])
