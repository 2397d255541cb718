"""The receivers of the soak, for `domain-events-supervisor benchmarks.soak.receivers`.

A note is written at the end of a handler, before the ack: who is killed between the two leaves a note and gets the
event again. There is never an ack without a note.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from benchmarks.soak.books import Clock, append
from benchmarks.soak.plan import MAX_RETRIES, Kind, kinds
from domain_events import DomainEvent, Receiver, Retry

FOLDER = Path(os.environ["SOAK_FOLDER"])
CLOCK = Clock(float(os.environ["SOAK_BEGAN"]))

receiver = Receiver()


class Handler:
    """What a kind of receiver does with an event."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._notes = FOLDER / f"handled.{kind.name}"

    def __call__(self, event: DomainEvent) -> None:
        match self._kind.does:
            case "sleep":
                time.sleep(event.data.get("seconds", 0.0))
            case "retry" if event.retries < event.data["retries"]:
                raise Retry(event.data["delays"][event.retries])
            case "fail":
                raise ValueError("this event cannot be handled")
            case "crash":
                crash(event)
        self.note(event)

    def note(self, event: DomainEvent) -> None:
        append(self._notes, f"{CLOCK.now():.3f} {event.uuid_string} {event.routing_key}")


class AsyncHandler(Handler):
    async def __call__(self, event: DomainEvent) -> None:  # type: ignore[override]
        await asyncio.sleep(event.data.get("seconds", 0.0))
        self.note(event)


def crash(event: DomainEvent) -> None:
    """Kill this process, if that is what the event is for; `once` means the first time it is here."""
    kills, mark = event.data["kills"], FOLDER / "killed" / event.uuid_string
    if kills == "never" or (kills == "once" and mark.exists()):
        return
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    if event.data["how"] == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[event.data["how"]])
    time.sleep(60)


def register(kind: Kind) -> None:
    receiver.register(
        AsyncHandler(kind) if kind.does == "await" else Handler(kind),
        kind.queue,
        kind.binding_keys,
        processes=kind.processes,
        threads=kind.threads,
        single_active=kind.single_active,
        queue_type="classic" if kind.classic else "quorum",
        max_retries=MAX_RETRIES if kind.does == "retry" else 0,
    )


for each in kinds(int(os.environ["SOAK_NODES"])):
    register(each)
