"""Receivers that fail, and receivers of alerts, as a test makes them up (TEST_RECEIVERS): see `Alerts`."""

import json
import os

from domain_events import DomainEvent, Receiver, child_started

LEDGER = os.environ["TEST_LEDGER"]

receiver = Receiver()
elsewhere = Receiver(exchange=os.environ.get("TEST_EXCHANGE", "domain-events"))
"""Of those with TEST_EXCHANGE."""


def note(receiver: str, event: DomainEvent) -> None:
    line = {"receiver": receiver, "key": event.routing_key, "id": event.uuid_string, "data": event.data}
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(line).encode() + b"\n")
    os.close(file)


def register(name: str, keys: list[str], *, does: str = "note", at: str = "receiver", **options: object) -> None:
    def handle(event: DomainEvent) -> None:
        note(name, event)
        if does == "fail":
            raise ValueError("no paper in tray 7 " + "x" * 300)
        if does == "die":
            os._exit(3)

    async def handle_async(event: DomainEvent) -> None:
        handle(event)

    handler = handle_async if "concurrency" in options else handle
    {"receiver": receiver, "elsewhere": elsewhere}[at].register(handler, name, keys, **options)  # type: ignore[arg-type]


for given_name, given in json.loads(os.environ["TEST_RECEIVERS"]).items():
    register(given_name, **given)


@child_started
def refuse() -> None:
    if os.path.exists(LEDGER + ".no-boot"):
        raise RuntimeError("no cup of tea")
