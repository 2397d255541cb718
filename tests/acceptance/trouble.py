"""A running service of tests/acceptance/troublemakers.py: what its master says, and what became of the events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain_events import DomainEvent, send_domain_event, send_domain_events
from tests.acceptance.service import COMMAND, Service
from tests.brokers import Message
from tests.growing import whole_lines, whole_objects
from tests.processes import Handle, Processes
from tests.waiting import wait_until

Line = dict[str, Any]
QUICK = ("--backoff", "0.05:0.3", "--kill-after", "1", "--log-format", "json")
DEADLINE = 120.0
"""Seconds. A slow machine is no failure."""


@dataclass(frozen=True)
class DeadLetter:
    """As it lies in the queue."""

    n: int
    headers: dict[str, Any]
    message: Message

    @property
    def reason(self) -> str:
        return str(self.headers["domain-events-reason"])

    @property
    def traceback(self) -> str:
        return str(self.headers.get("domain-events-traceback", ""))


class Master:
    """The command, and its log as JSON."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.pid = handle.pid

    def log(self) -> list[Line]:
        texts = whole_lines(self.handle.log)
        return [json.loads(text) for text in texts if text.startswith("{") and text.endswith("}")]

    def lines(self, event: str, **fields: object) -> list[Line]:
        """The log lines with this event and these fields, so far."""
        wanted = {"event": event, **fields}
        return [line for line in self.log() if wanted.items() <= line.items()]

    def wait_lines(self, event: str, count: int = 1, **fields: object) -> list[Line]:
        def found() -> list[Line]:
            ended = self.handle.returncode is not None  # asked before reading: what was written last is read
            lines = self.lines(event, **fields)
            assert len(lines) >= count or not ended, f"the master ended without {count} x {event} {fields}"
            return lines if len(lines) >= count else []

        return wait_until(found, DEADLINE, f"{count} x {event} {fields}", pause=0.05)

    def messages(self, *words: str) -> list[str]:
        """Those in which all these words are."""
        return [line["message"] for line in self.log() if all(word in line["message"] for word in words)]

    def pids(self) -> list[int]:
        """Of the children that consume, oldest first."""
        gone = {line["pid"] for line in self.lines("child_exit")}
        return [line["pid"] for line in self.lines("child_consuming") if line["pid"] not in gone]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self, number: int = signal.SIGTERM, tracebacks: int = 0) -> int:
        """The exit code. Nothing of the tree may be left, and no traceback but those of handlers be there."""
        self.handle.send(number)
        code = self.handle.wait(DEADLINE)
        assert self.handle.group() == []
        # By lines, each a record: how many errors a chain shows is a matter of the Python version.
        assert sum("Traceback" in line for line in self.handle.output().splitlines()) == tracebacks
        return code

    def freeze(self, *, children: bool) -> None:
        """SIGSTOP, to its children too if asked."""
        for pid in (self.pid, *(self.pids() if children else ())):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (self.pid, *self.pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Trouble:
    """Receivers of one test, their events, and the ledger of what was done to them."""

    def __init__(self, service: Service, processes: Processes) -> None:
        self._processes = processes
        self.queues = service.queues
        self.url = service.url
        self.prefix = service.prefix
        self.ledger = service.ledger
        self.sent: dict[str, list[int]] = {}

    def start(self, *flags: str, **receivers: Mapping[str, object]) -> Master:
        """A master, all of whose children consume. `receivers`: the options of each."""
        for name in receivers:
            self.queues.forget_after(self.prefix + name)
        handle = self._processes.start(
            [sys.executable, COMMAND, *QUICK, *flags, "tests.acceptance.troublemakers"],
            env={
                "DOMAIN_EVENT_BROKER": self.url,
                "TEST_PREFIX": self.prefix,
                "TEST_LEDGER": str(self.ledger),
                "TEST_RECEIVERS": json.dumps(receivers),
            },
        )
        master = Master(handle)
        master.wait_lines("child_consuming", sum(int(str(r.get("processes", 1))) for r in receivers.values()))
        return master

    def send(self, name: str, n: int, uuid_string: str | None = None, **data: object) -> DomainEvent:
        self.sent.setdefault(name, []).append(n)
        return send_domain_event(
            f"{self.prefix}.{name}.asked",
            {"n": n, **data},
            uuid_string=uuid_string,
            connection_settings=self.url,
            timeout=DEADLINE,
        )

    def send_many(self, name: str, *events: Mapping[str, object]) -> None:
        self.sent.setdefault(name, []).extend(int(str(event["n"])) for event in events)
        pairs = [(f"{self.prefix}.{name}.asked", event) for event in events]
        send_domain_events(pairs, connection_settings=self.url, timeout=DEADLINE)

    def go_on(self) -> None:
        """For the handlers that wait for it."""
        Path(f"{self.ledger}.go-on").touch()

    def notes(self, name: str, step: str) -> list[Line]:
        return [note for note in whole_objects(self.ledger) if (note["step"], note["receiver"]) == (step, name)]

    def begun(self, name: str = "work") -> Counter[int]:
        """How often the handler was called, for each event."""
        return Counter(note["n"] for note in self.notes(name, "begin"))

    def handled(self, name: str = "work") -> Counter[int]:
        """How often the handler came to its end, for each event."""
        return Counter(note["n"] for note in self.notes(name, "end"))

    def wait_begun(self, n: int, name: str = "work", times: int = 1) -> None:
        wait_until(lambda: self.begun(name)[n] >= times, DEADLINE, f"event {n} begun {times} x", pause=0.05)

    def wait_handled(self, numbers: Iterable[int], name: str = "work") -> Counter[int]:
        wanted = set(numbers)
        wait_until(lambda: wanted <= set(self.handled(name)), DEADLINE, f"{wanted} handled", pause=0.05)
        return self.handled(name)

    def wait_dead(self, count: int, name: str = "work") -> None:
        self.queues.wait_count(f"{self.prefix}{name}:dead", count, DEADLINE)

    def take_dead(self, name: str = "work") -> list[DeadLetter]:
        """All dead letters, out of their queue."""
        return [
            DeadLetter(json.loads(message[2])["data"]["n"], dict(message[1].headers or {}), message)
            for message in self.queues.drain(f"{self.prefix}{name}:dead")
        ]

    def replay(self, letter: DeadLetter, name: str = "work") -> None:
        """Back into the queue of its receiver, as by hand."""
        _, properties, body = letter.message
        properties.headers = {}
        self.queues.publish(self.prefix + name, body, exchange="", properties=properties)

    def check_ledger(self, dead: Iterable[DeadLetter] = (), name: str = "work", dropped: Iterable[int] = ()) -> None:
        """After the end: handled + queued + dead-lettered = sent, and nothing in two of them.

        The broker may still have to notice that a connection is gone, to give back what it had.
        """
        found = [*self.handled(name), *(letter.n for letter in dead), *dropped]
        sent = self.sent[name]

        def complete() -> bool:
            found.extend(json.loads(body)["data"]["n"] for _, _, body in self.queues.drain(self.prefix + name))
            return len(found) >= len(sent)

        wait_until(complete, DEADLINE, f"{len(sent)} events of {name} handled, queued or dead", pause=0.05)
        assert sorted(found) == sorted(sent)

    def refuse_to_boot(self, refuse: bool = True) -> None:
        """Children that boot from now on fail."""
        mark = Path(f"{self.ledger}.no-boot")
        if refuse:
            mark.touch()
        else:
            mark.unlink()
