"""A service whose module the test writes, and writes anew, and the operator's command for it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domain_events import send_domain_event
from domain_events.supervisor.control_client import ask
from domain_events.supervisor.protocol import Done, Status
from tests import proc
from tests.acceptance.trouble import DEADLINE, Line, Master
from tests.brokers import Queues
from tests.growing import whole_objects
from tests.processes import ROOT, Processes
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor")]
OPERATOR = [sys.executable, str(ROOT / "bin" / "domain-events")]
FLAGS = ("--log-format", "json", "--backoff", "0.05:0.3", "--kill-after", "2")

HEAD = """
import json, logging, os, signal, sys, time

from domain_events import Receiver, Retry, child_started, child_stopping

VERSION = {version!r}
PREFIX = os.environ.get("TEST_PREFIX", "")
receiver = Receiver(*([None] if {offline!r} else []))


def note(name, event):
    line = {{"receiver": name, "n": event.data["n"], "version": VERSION, "pid": os.getpid()}}
    file = os.open(os.environ["TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(line).encode() + b"\\n")
    os.close(file)


def handler(name):
    def handle(event):
        time.sleep(event.data.get("seconds", 0))
        if "until" in event.data:
            open(event.data["until"] + ".begun", "w").close()
            while not os.path.exists(event.data["until"]):
                time.sleep(0.02)
        if event.data.get("retry", 0) > event.retries:
            raise Retry(0.2)
        if event.data.get("fail"):
            raise ValueError("cannot be handled")
        note(name, event)
    return handle


def receive(name, *keys, **options):
    keys = keys or (name + ".#",)
    receiver.register(handler(name), PREFIX + name, [PREFIX + key for key in keys], **options)


@child_started
def say_hello():
    logging.getLogger("app").warning("code %s", VERSION)


"""


class App:
    """The file app.py in a folder of its own."""

    def __init__(self, folder: Path, *, offline: bool = False) -> None:
        """`offline`: its receivers need no broker, and get no events."""
        self.folder = folder
        self._offline = offline
        folder.mkdir(exist_ok=True)

    def write(self, version: str, body: str) -> None:
        """As a whole, at once: `body` calls `receive(name, ...)`."""
        self.write_text(HEAD.format(version=version, offline=self._offline) + body)

    def write_text(self, text: str) -> None:
        new = self.folder / "app.py.new"
        new.write_text(text)
        new.replace(self.folder / "app.py")


class Deployed:
    """It, under the real command."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self.app = App(folder / "app", offline=True)
        self.control = folder / "control.sock"
        self.env: dict[str, str] = {}
        self.master: Master

    def start(
        self, *flags: str, children: int, command: Sequence[str] = (*COMMAND, "app"), cwd: Path | None = None
    ) -> Master:
        """A master of which so many children consume."""
        handle = self._processes.start(
            [*command, *FLAGS, "--control", str(self.control), *flags],
            env={"PYTHONDONTWRITEBYTECODE": "1", **self.env},
            cwd=cwd or self.app.folder,
        )
        self.master = Master(handle)
        if children:
            self.master.wait_lines("child_consuming", children)
            # A child says first that it consumes, and changes its title then.
            wait_until(lambda: len(self.running()) >= children, DEADLINE, f"{children} titles")
        return self.master

    @property
    def pid(self) -> int:
        return self.master.pid

    def operate(self, *arguments: str, timeout: float = DEADLINE) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the operator's command."""
        with self.operating(*arguments) as command:
            out, err = command.communicate(timeout=timeout)
        assert "Traceback (most recent call last)" not in err.replace("cannot import", ""), err
        return command.returncode, out, err

    @contextlib.contextmanager
    def operating(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The operator's command while it runs."""
        command = subprocess.Popen(
            [*OPERATOR, *arguments, "--control", str(self.control)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with command:
            try:
                yield command
            finally:
                if command.poll() is None:
                    command.kill()

    def status(self) -> dict[str, Any]:
        """As `domain-events status --json` shows it, but without its start: for those who ask often."""
        reply = ask(str(self.control), Status(), DEADLINE)
        assert isinstance(reply, Done)
        return dict(reply.data)

    def receiver(self, name: str) -> dict[str, Any]:
        """Its part of the status."""
        [found] = [receiver for receiver in self.status()["receivers"] if receiver["name"] == name]
        return dict(found)

    def reload(self) -> None:
        """Once the new code runs."""
        assert self.operate("reload", "--wait") == (0, "", "domain-events: the new code runs\n")

    def reload_fails(self) -> str:
        """The reason, as it is told."""
        code, out, err = self.operate("reload", "--wait")
        assert (code, out) == (1, "")
        return err

    def running(self) -> dict[int, str]:
        """The children that consume, by pid, as their titles name them."""
        titles = {pid: proc.title(pid) for pid in proc.children(self.pid)}
        return {pid: title.split()[2] for pid, title in titles.items() if title.endswith(" consuming")}

    def wait_running(self, *slots: str) -> dict[int, str]:
        """Exactly these."""
        wait_until(lambda: sorted(self.running().values()) == sorted(slots), DEADLINE, f"{slots} and no others consume")
        return self.running()

    @property
    def loaders(self) -> list[int]:
        return [pid for pid in proc.children(self.pid) if "loader" in proc.title(pid)]

    def version_of(self, pid: int) -> str:
        """What a child has said of its code."""

        def said() -> list[str]:
            lines = [line for line in self.master.log() if line["process"] == pid and line["logger"] == "app"]
            return [line["message"].removeprefix("code ") for line in lines]

        return wait_until(said, what=f"a line of {pid}")[0]

    def versions(self) -> set[str]:
        """Of all children that consume, once log and titles agree about who does: both come a little later."""
        wait_until(lambda: set(self.master.pids()) == set(self.running()), DEADLINE, "a log that knows all titles")
        return {self.version_of(pid) for pid in self.running()}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code. Nothing of the tree may be left, and no traceback of the master be there."""
        self.master.handle.send(number)
        code = self.master.handle.wait(DEADLINE)
        assert self.master.handle.group() == [], self.master.handle.output()[-4000:]
        assert not [line for line in self.master.log() if line["process"] == self.pid and "exception" in line]
        assert not self.control.exists()
        return code


class Connected(Deployed):
    """With a real broker, events and a ledger."""

    def __init__(self, processes: Processes, folder: Path, queues: Queues, url: str, prefix: str) -> None:
        super().__init__(processes, folder)
        self.app = App(folder / "app")
        self.queues = queues
        self.url = url
        self.prefix = prefix
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self.env = {"DOMAIN_EVENT_BROKER": url, "TEST_PREFIX": prefix, "TEST_LEDGER": str(self._ledger)}

    def clean(self, *receivers: str) -> None:
        """Their queues go after the test."""
        for receiver in receivers:
            self.queues.forget_after(self.prefix + receiver, 200)

    def send(self, key: str, *numbers: int, **data: object) -> None:
        for n in numbers:
            send_domain_event(
                self.prefix + key, {"n": n, **data}, connection_settings=self.url, timeout=DEADLINE, mandatory=True
            )

    def send_long(self, key: str, n: int) -> Path:
        """One whose handler is at work, and is until this file is there."""
        go_on = self.app.folder / f"go-on-{n}"
        self.send(key, n, until=str(go_on))
        wait_until(Path(f"{go_on}.begun").exists, what=f"event {n} in hand")
        return go_on

    @contextlib.contextmanager
    def stream(self, *keys: str) -> Iterator[list[int]]:
        """A steady stream of events for each key meanwhile; the numbers that were sent."""
        sent: list[int] = []
        is_over = threading.Event()

        def send() -> None:
            while not is_over.is_set():
                for key in keys:
                    self.send(key, len(sent))
                sent.append(len(sent))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield sent
        finally:
            is_over.set()
            thread.join(DEADLINE)

    def notes(self, receiver: str) -> list[Line]:
        return [note for note in whole_objects(self._ledger) if note["receiver"] == receiver]

    def handled(self, receiver: str) -> Counter[int]:
        """How often, for each event."""
        return Counter(note["n"] for note in self.notes(receiver))

    def wait_handled(self, receiver: str, numbers: Sequence[int]) -> Counter[int]:
        wait_until(lambda: set(numbers) <= set(self.handled(receiver)), DEADLINE, f"{len(numbers)} handled", pause=0.05)
        return self.handled(receiver)

    def check_nothing_left(self, *receivers: str) -> None:
        """After the end: what was sent is handled, and nowhere else."""
        for name in (f"{self.prefix}{receiver}{kind}" for receiver in receivers for kind in ("", ":dead")):
            self.queues.wait_count(name, 0)


def order(lines: list[Line], event: str, **fields: object) -> int:
    """Where the only line with this event and these fields stands."""
    [at] = [n for n, line in enumerate(lines) if {"event": event, **fields}.items() <= line.items()]
    return at
