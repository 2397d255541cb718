"""A process that sends, and writes down what it is about to send and what became of it.

python -m benchmarks.soak.sender NAME threads|coroutines|rarely SEED RATE RATE_OF_ALL
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.soak.books import Clock, append
from benchmarks.soak.plan import draw_data, draw_topic
from domain_events import DomainEvent, Sender
from domain_events.errors import (
    BrokerRefused,
    ConnectionFailed,
    EventTooLarge,
    PartlySent,
    SendError,
    Unroutable,
)
from domain_events.supervisor.formats import configure

NOT_SENT = (ConnectionFailed, BrokerRefused, EventTooLarge, Unroutable)
"""What promises that the event has not arrived."""
THREADS = 3
RARELY = (8.0, 25.0)
"""Seconds between two events of a sender that sends rarely."""


class Journal:
    """`TIME about ID TOPIC TIMEOUT` before an event is sent, `TIME confirmed|unknown|not-sent ID ERROR` after it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def about(self, events: Sequence[DomainEvent], timeout: float) -> None:
        now = self._clock.now()
        topics = ((event.uuid_string, event.routing_key.removeprefix("soak.")) for event in events)
        append(self._path, "\n".join(f"{now:.3f} about {name} {topic} {timeout:g}" for name, topic in topics))

    def after(self, events: Sequence[DomainEvent], error: BaseException | None = None) -> None:
        now = self._clock.now()
        causes: dict[str, BaseException | None] = dict.fromkeys((event.uuid_string for event in events), error)
        if isinstance(error, PartlySent):
            causes = dict.fromkeys(causes)
            causes |= {e.uuid_string: cause for e, cause in zip(error.unconfirmed, error.causes, strict=True)}
        lines = []
        for name, cause in causes.items():
            outcome = "confirmed" if cause is None else "not-sent" if isinstance(cause, NOT_SENT) else "unknown"
            lines.append(f"{now:.3f} {outcome} {name} {'-' if cause is None else type(cause).__name__}")
        append(self._path, "\n".join(lines))


class Events:
    """Draws events for one thread."""

    def __init__(self, name: str, dice: random.Random, rate_of_all: float) -> None:
        self._name = name
        self._dice = dice
        self._rate = rate_of_all
        self._number = 0

    def draw(self, count: int) -> list[DomainEvent]:
        events = []
        for _ in range(count):
            self._number += 1
            topic = draw_topic(self._rate, self._dice)
            name = f"{self._name}-{self._number}"
            events.append(DomainEvent(f"soak.{topic}", draw_data(topic, self._dice), uuid_string=name))
        return events

    def draw_count(self) -> int:
        """How many at once: mostly one."""
        return self._dice.randint(5, 40) if self._dice.random() < 0.02 else 1

    def draw_timeout(self) -> float:
        return self._dice.choices([10.0, 3.0, 1.0], [7, 2, 1])[0]


def send_all(stop: threading.Event, events: Events, journal: Journal, dice: random.Random, rate: float | None) -> None:
    """Until `stop`. `rate`: events in a second; None: rarely."""
    sender = Sender()
    pause = 0.0
    while not stop.wait(pause):
        batch = events.draw(events.draw_count() if rate else 1)
        timeout = events.draw_timeout() if rate else 10.0
        pause = dice.expovariate(rate / len(batch)) if rate else dice.uniform(*RARELY)
        journal.about(batch, timeout)
        try:
            if len(batch) == 1:
                [event] = batch
                sender.send(event.routing_key, event.data, uuid_string=event.uuid_string, timeout=timeout)
            else:
                sender.send_many(batch, timeout=timeout)
        except SendError as error:
            journal.after(batch, error)
        else:
            journal.after(batch)


async def send_all_async(
    stop: threading.Event, events: Events, journal: Journal, dice: random.Random, rate: float
) -> None:
    """The same from coroutines, several at a time."""
    sender = Sender()

    async def send_one() -> None:
        [event] = events.draw(1)
        timeout = events.draw_timeout()
        journal.about([event], timeout)
        try:
            await sender.send_async(event.routing_key, event.data, uuid_string=event.uuid_string, timeout=timeout)
        except SendError as error:
            journal.after([event], error)
        else:
            journal.after([event])

    async with asyncio.TaskGroup() as sending:
        while not stop.is_set():
            sending.create_task(send_one())
            await asyncio.sleep(dice.expovariate(rate))


def main() -> int:
    name, kind, seed, rate, rate_of_all = sys.argv[1:]
    configure("INFO", "json")
    folder, clock = Path(os.environ["SOAK_FOLDER"]), Clock(float(os.environ["SOAK_BEGAN"]))
    journal = Journal(folder / f"sent.{name}", clock)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    failed = threading.Event()

    def run(number: int) -> None:
        dice = random.Random(f"{seed} {name} {number}")
        events = Events(f"{name}.{number}", dice, float(rate_of_all))
        try:
            if kind == "coroutines":
                asyncio.run(send_all_async(stop, events, journal, dice, float(rate)))
            else:
                send_all(stop, events, journal, dice, float(rate) / THREADS if kind == "threads" else None)
        except BaseException:  # noqa: BLE001  whatever it is, the process shall say so and end
            traceback.print_exc()
            failed.set()
            stop.set()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS if kind == "threads" else 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 if failed.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
