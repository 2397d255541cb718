"""A service in trouble, and the commands of the runbook for it: real processes, a real broker."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain_events import DomainEvent, send_domain_event
from tests.brokers import Broker, Queues
from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

DEADLINE = 60.0
NAME = "printer"
FLAGS = ("--backoff", "0.2:60", "--grace", "1", "--kill-after", "1")
APP = """\
import logging, os, signal, time
from domain_events import Receiver, child_started

receiver = Receiver()
{head}

@receiver.handles("printer", ["order.#"]{options})
def print_badge(event):
    {body}
"""


@dataclass(frozen=True)
class Step:
    """A command of the runbook, and what it must show in this trouble."""

    begins: str
    shows: tuple[str, ...]
    code: int | None
    changes: bool
    before: Callable[[], object]


def step(
    begins: str,
    *shows: str,
    code: int | None = 0,
    changes: bool = False,
    before: Callable[[], object] = lambda: None,
) -> Step:
    """`begins`: how the command does. `code`: None for any but 0. `changes`: not to be given again until it shows that.

    before: what the person does before it, beside the commands.
    """
    return Step(begins, shows, code, changes, before)


class Scene:
    """`ID` in a command stands for `event`."""

    def __init__(self, processes: Processes, broker: Broker, queues: Queues, folder: Path) -> None:
        self._processes = processes
        self.broker = broker
        self.queues = queues
        self.folder = folder
        self.url = broker.url
        self.event: DomainEvent
        self.master: Handle
        self._bin = folder / "bin"
        self._bin.mkdir()
        (folder / "app").mkdir()
        (folder / "app" / "__init__.py").touch()
        queues.forget_after(NAME)

    def write(self, body: str, *, head: str = "", options: str = "") -> None:
        """The code of the service. `options`: of the registration."""
        path = self.folder / "app" / "receivers.py"
        new = path.with_suffix(".new")
        new.write_text(APP.format(body=body, head=head, options=f", {options}" if options else ""))
        new.replace(path)

    def start(self, *flags: str) -> None:
        self.master = self._processes.start(
            [sys.executable, ROOT / "bin" / "domain-events-supervisor", *FLAGS, *flags, "app.receivers"],
            env=self._env(),
            cwd=self.folder,
        )
        self._put_commands()

    def consume(self, *flags: str) -> None:
        """Start, and wait until it consumes."""
        self.start(*flags)
        self.master.wait_output("event=child_consuming", DEADLINE)

    def send(self, **data: object) -> DomainEvent:
        return send_domain_event("order.placed", data, connection_settings=self.broker.url, timeout=DEADLINE)

    def play(self, commands: Sequence[str], steps: Sequence[Step]) -> None:
        for command, expected in zip(commands, steps, strict=True):
            assert command.startswith(expected.begins), f"{command}: should be {expected.begins} ..."
            expected.before()
            self._check(command, expected)

    def _check(self, command: str, expected: Step) -> None:
        seen = ""

        def is_as_expected() -> bool:
            nonlocal seen
            code, seen = self.run(command)
            is_right = bool(code) if expected.code is None else code == expected.code
            seen = f"exit {code}\n{seen}"
            return is_right and all(re.search(text, seen) for text in expected.shows)

        try:
            wait_until(is_as_expected, 0.0 if expected.changes else DEADLINE, pause=0.2)
        except AssertionError:
            log = self.master.output()[-3000:]
            raise AssertionError(f"{command}: not {expected.code}, {expected.shows}, but\n{seen}\n---\n{log}") from None

    def run(self, command: str) -> tuple[int, str]:
        """As it stands there, in a shell: its exit code, and what it wrote."""
        done = subprocess.run(
            ["sh", "-c", re.sub(r"\bID\b", lambda _: self.event.uuid_string, command)],
            env={**os.environ, **self._env(), "PATH": f"{self._bin}:{os.environ['PATH']}"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        return done.returncode, done.stdout

    def _env(self) -> dict[str, str]:
        return {
            "DOMAIN_EVENT_BROKER": self.url,
            "DOMAIN_EVENTS_CONTROL": str(self.folder / "control.sock"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _put_commands(self) -> None:
        """Ours, by name. The broker's, for the broker of this test. The journal is the master's log."""
        for name in ("domain-events", "domain-events-supervisor"):
            self._put(name, [sys.executable, str(ROOT / "bin" / name)])
        for name in ("rabbitmqctl", "rabbitmq-diagnostics"):
            self._put(name, [*self.broker.control_command(), name])
        self._put("journalctl", ["cat", str(self.master.log), "#"])

    def _put(self, name: str, command: Sequence[str]) -> None:
        path = self._bin / name
        words = " ".join(word if word == "#" else shlex.quote(word) for word in command)
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)
