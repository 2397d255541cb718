"""A running service of tests/acceptance/receivers.py under the real command, and its ledger."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from domain_events import DomainEvent, send_domain_event, send_domain_events
from tests import proc
from tests.brokers import Queues
from tests.growing import whole_objects
from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

COMMAND = ROOT / "bin" / "domain-events-supervisor"
RETRY_DELAYS_MS = (200, 300, 400, 500, 800, 3000)


class Service:
    """What the tests want to know about it: who runs, and what the handlers noted."""

    def __init__(self, processes: Processes, queues: Queues, url: str, prefix: str, folder: Path) -> None:
        self._processes = processes
        self.queues = queues
        self.url = url
        self.prefix = prefix
        self.ledger = folder / "ledger.jsonl"
        self.ledger.touch()
        for receiver in ("work", "other"):
            queues.forget_after(f"{prefix}{receiver}", *RETRY_DELAYS_MS)

    def start(self, *flags: str, url: str | None = None, **env: str) -> Handle:
        """A supervisor; returns at once."""
        return self._processes.start(
            [sys.executable, COMMAND, *flags, "tests.acceptance.receivers"],
            env={
                "DOMAIN_EVENT_BROKER": url or self.url,
                "TEST_PREFIX": self.prefix,
                "TEST_LEDGER": str(self.ledger),
                **env,
            },
        )

    def start_consuming(self, *flags: str, children: int = 2, **env: str) -> Handle:
        """A supervisor, all of whose children consume."""
        handle = self.start(*flags, **env)
        handle.wait_output("event=child_consuming")
        wait_until(lambda: handle.output().count("event=child_consuming") >= children, what="all children consume")
        return handle

    def send(self, receiver: str, n: int, **data: object) -> DomainEvent:
        return send_domain_event(
            f"{self.prefix}.{receiver}.asked", {"n": n, **data}, connection_settings=self.url, timeout=30.0
        )

    def send_many(self, receiver: str, numbers: range, **data: object) -> None:
        send_domain_events(
            [(f"{self.prefix}.{receiver}.asked", {"n": n, **data}) for n in numbers],
            connection_settings=self.url,
            timeout=30.0,
        )

    def go_on(self) -> None:
        """For the handlers that wait for it."""
        Path(f"{self.ledger}.go-on").touch()

    def notes(self, step: str, receiver: str = "work") -> list[dict[str, Any]]:
        return [note for note in whole_objects(self.ledger) if (note["step"], note["receiver"]) == (step, receiver)]

    def handled(self, receiver: str = "work") -> Counter[int]:
        """How often the handler came to its end, for each event."""
        return Counter(note["n"] for note in self.notes("end", receiver))

    def wait_begun(self, n: int, receiver: str = "work", times: int = 1) -> None:
        wait_until(
            lambda: [note["n"] for note in self.notes("begin", receiver)].count(n) >= times, 30.0, f"event {n} begun"
        )

    def wait_handled(self, numbers: range, receiver: str = "work", deadline: float = 60.0) -> Counter[int]:
        def missing() -> set[int]:
            return set(numbers) - set(self.handled(receiver))

        wait_until(lambda: not missing(), deadline, f"all of {numbers} handled")
        return self.handled(receiver)

    def wait_empty(self, receiver: str = "work") -> None:
        """Nothing waits in the queue or in a retry queue. Only true of what no consumer holds: ask after its end."""
        for queue in (receiver, *(f"{receiver}:retry:{delay}" for delay in RETRY_DELAYS_MS)):
            name = f"{self.prefix}{queue}"
            wait_until(lambda name=name: not self.queues.count(name), what=f"{name} empty")  # type: ignore[misc]


def running(pids: list[int]) -> list[int]:
    """Those of `pids` that are processes and no zombies."""
    alive = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            alive.append(pid)
    return alive


def connections(pid: int, url: str) -> int:
    """How many established TCP connections to the broker this process has (proc(5): net/tcp)."""
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    mine = set(proc.descriptors(pid).values())
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" and f"socket:[{row[9]}]" in mine for row in rows)
