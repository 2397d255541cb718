"""A running service of tests/acceptance/alerted.py, and what was told of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domain_events import DomainEvent, send_domain_events
from tests.acceptance.service import COMMAND
from tests.acceptance.trouble import DEADLINE, Master
from tests.brokers import Queues
from tests.growing import whole_objects
from tests.processes import Processes
from tests.waiting import wait_until

Alert = dict[str, Any]
QUICK = ("--backoff", "0.05:60", "--kill-after", "1", "--log-format", "json")


class Alerts:
    """`watch` gets every alert that the broker has taken, whoever it is about."""

    def __init__(self, processes: Processes, queues: Queues, url: str, prefix: str, folder: Path) -> None:
        self._processes = processes
        self.queues = queues
        self.url = url
        self.prefix = prefix
        self.ledger = folder / "ledger.jsonl"
        self.ledger.touch()
        self.seen: list[DomainEvent] = []
        self._watch = ""

    def listen(self) -> None:
        """From now on."""
        self._watch = self.queues.declare_watch("domain-events.#")

    def start(
        self, *flags: str, url: str | None = None, env: Mapping[str, str] | None = None, **receivers: Mapping[str, Any]
    ) -> Master:
        """`receivers`: what `alerted.register` takes; the names get the prefix of this test."""
        if not self._watch:
            self.listen()
        named = {self.prefix + name: {"keys": [f"{self.prefix}{name}.#"], **given} for name, given in receivers.items()}
        for name in named:
            self.queues.forget_after(name)
        return Master(
            self._processes.start(
                [sys.executable, COMMAND, *QUICK, *flags, "tests.acceptance.alerted"],
                env={
                    "DOMAIN_EVENT_BROKER": url or self.url,
                    "TEST_LEDGER": str(self.ledger),
                    "TEST_RECEIVERS": json.dumps(named),
                    **(env or {}),
                },
            )
        )

    def start_consuming(self, *flags: str, **more: Any) -> Master:
        master = self.start(*flags, **more)
        master.wait_lines("child_consuming", len([name for name in more if name not in ("url", "env")]))
        return master

    def send(self, name: str, *data: object, exchange: str | None = None) -> list[DomainEvent]:
        key = f"{self.prefix}{name}.asked"
        events = [DomainEvent(key, each) for each in data]
        if exchange is None:
            return send_domain_events(events, connection_settings=self.url, timeout=DEADLINE)
        for event in events:
            self.queues.publish(key, event.encode(), exchange=exchange)
        return events

    def wait(self, n: int, deadline: float = DEADLINE) -> list[DomainEvent]:
        """All alerts of this test so far, once there are `n`."""

        def arrived() -> bool:
            for _, _, body in self.queues.drain(self._watch):
                alert = DomainEvent.from_json(body)
                if str(alert.data["receiver"]).startswith(self.prefix):
                    self.seen.append(alert)
            return len(self.seen) >= n

        wait_until(arrived, deadline, f"{n} alerts", pause=0.05)
        return self.seen

    def wait_dead(self, name: str, n: int) -> None:
        self.queues.wait_count(f"{self.prefix}{name}:dead", n, DEADLINE)

    def handled(self, name: str) -> list[dict[str, Any]]:
        """What the handler of this receiver was called with, but for alerts of other tests."""
        return [
            line
            for line in whole_objects(self.ledger)
            if line["receiver"] == self.prefix + name and self._is_mine(line)
        ]

    def _is_mine(self, line: dict[str, Any]) -> bool:
        return not line["key"].startswith("domain-events.") or line["data"]["receiver"].startswith(self.prefix)

    def refuse_to_boot(self, refuse: bool = True) -> None:
        """Children that boot from now on fail."""
        mark = Path(f"{self.ledger}.no-boot")
        if refuse:
            mark.touch()
        else:
            mark.unlink()
