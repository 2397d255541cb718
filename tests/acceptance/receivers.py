"""Receivers for the acceptance tests: what the handler does stands in the event."""

import hashlib
import json
import os
import signal
import time

from domain_events import Backoff, DomainEvent, Receiver, Retry

PREFIX = os.environ["TEST_PREFIX"]
LEDGER = os.environ["TEST_LEDGER"]

receiver = Receiver()


def note(receiver_name: str, event: DomainEvent, step: str) -> None:
    line = {
        "receiver": receiver_name,
        "step": step,
        "n": event.data["n"],
        "retries": event.retries,
        "pid": os.getpid(),
        "at": time.monotonic(),
    }
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(line).encode() + b"\n")
    os.close(file)


def mended() -> list[str]:
    """Numbers of the events that can be handled by now."""
    try:
        with open(LEDGER + ".mended") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def act(event: DomainEvent) -> None:
    match event.data.get("do"):
        case "sleep":
            time.sleep(event.data["seconds"])
        case "wait":
            while not os.path.exists(LEDGER + ".go-on"):
                time.sleep(0.02)
        case "hash":
            # In calls into C of half a second or more.
            while not os.path.exists(LEDGER + ".go-on"):
                hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1_000_000)
        case "die once" if not os.path.exists(LEDGER + ".died"):
            open(LEDGER + ".died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        case "retry" if event.retries < event.data["times"]:
            raise Retry(event.data["delay"])
        case "fail unless mended":
            if os.path.exists(LEDGER + ".kills"):
                os.kill(os.getpid(), signal.SIGKILL)
            if mended() and not event.retries and os.path.exists(LEDGER + ".retries"):
                raise Retry(0.2)
            if str(event.data["n"]) not in mended():
                raise ValueError(f"event {event.data['n']} cannot be handled")
        case "fail":
            raise ValueError(f"event {event.data['n']} cannot be handled")


@receiver.handles(
    f"{PREFIX}work",
    f"{PREFIX}.work.#",
    max_retries=3,
    backoff=Backoff(first=0.2, jitter=0.0),
    processes=int(os.environ.get("TEST_PROCESSES", "1")),
)
def work(event: DomainEvent) -> None:
    note("work", event, "begin")
    act(event)
    note("work", event, "end")


@receiver.handles(f"{PREFIX}other", f"{PREFIX}.other.#")
def other(event: DomainEvent) -> None:
    note("other", event, "begin")
    act(event)
    note("other", event, "end")
