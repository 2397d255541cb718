"""One node of a broker: a process of ours with its helpers."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from private_broker.configuration import Record, environment, node_mark
from private_broker.login import listens, takes_login
from private_broker.problem import Problem, say
from private_broker.processes import Process, identity, kill_marked, runs, send, stands, wait_gone
from private_broker.userland import enter

STOP_TIMEOUT = 20.0


class Node:
    """`record` is the broker's, `entry` what it says of this node; whoever starts a node saves the record."""

    def __init__(self, folder: Path, record: Record, entry: Record) -> None:
        self.number: int = entry["number"]
        self.label = f"{folder.name}, node {self.number}" if len(record["nodes"]) > 1 else folder.name
        self.log = folder / f"node{self.number}" / "log" / "rabbit.log"
        self._folder = folder
        self._record = record
        self._entry = entry

    @property
    def state(self) -> str:
        """running, paused or down."""
        process: Process | None = self._entry.get("process")
        if process is None or not runs(process):
            return "down"
        return "paused" if stands(process) else "running"

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        process: Process | None = self._entry.get("process")
        return process["pid"] if process and runs(process) else None

    @property
    def ready(self) -> bool:
        """Whether it takes a login and listens wherever it should."""
        others = [self._entry[key] for key in ("tls_port", "management_port") if key in self._entry]
        return takes_login(self._entry["port"]) and all(listens(port) for port in others)

    def start(self, *, tied: bool) -> None:
        mark, _, marked_as = node_mark(self._folder, self._entry).partition("=")
        self._entry["process"] = spawn(
            self._folder,
            self._record,
            [self._record["server"]],
            {**self._environment(), mark: marked_as},
            self.log.with_name("output"),
            tied=tied,
        )

    def shut_down(self) -> None:
        """Asks it to stop in good order, and keeps the data."""
        if runs(self._entry.get("process")):
            send(self._entry["process"], signal.SIGTERM)
            send(self._entry["process"], signal.SIGCONT)
            if not wait_gone([self._entry["process"]], STOP_TIMEOUT):
                say(f"{self.label} did not stop within {STOP_TIMEOUT:g} s: killed")
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the node and all that belongs to it."""
        send(self._entry.get("process"), signal.SIGKILL)
        kill_marked(node_mark(self._folder, self._entry), self.label)

    def pause(self) -> None:
        send(self._entry.get("process"), signal.SIGSTOP)

    def resume(self) -> None:
        send(self._entry.get("process"), signal.SIGCONT)

    def tool(self, args: list[str], *, quiet: bool = False) -> int:
        """Runs rabbitmqctl, or the tool that `args` begin with (rabbitmq-queues, ...); its exit status."""
        program = "rabbitmqctl"
        if args and args[0].startswith("rabbitmq"):
            program, args = args[0], args[1:]
        argv = [str(Path(self._record["server"]).with_name(program)), *args]
        try:
            return subprocess.run(
                enter(self._folder, self._record.get("root"), argv),
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL if quiet else None,
                stdout=subprocess.DEVNULL if quiet else None,
            ).returncode
        except OSError as error:
            raise Problem(f"cannot run {program}: {error.strerror}") from error

    def last_words(self) -> str:
        return tail(self.log.with_name("output"), self.log)

    def _environment(self) -> dict[str, str]:
        return environment(self._folder, self._record, self._entry)


def spawn(
    folder: Path, record: Record, argv: list[str], env: Mapping[str, str], output: Path, *, tied: bool
) -> Process:
    """A process of the broker in `folder`, which outlives this command; `tied`: it ends when we do."""
    argv = enter(folder, record.get("root"), argv)
    if tied and (setpriv := shutil.which("setpriv")):
        argv = [setpriv, "--pdeathsig", "KILL", *argv]  # even when we are killed
    with output.open("ab") as out:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    process.returncode = 0  # no warning about a process that goes on
    return identity(process.pid)


def tail(*paths: Path) -> str:
    """The first errors in these logs; the last lines when there is none."""
    lines: list[str] = []
    for path in paths:
        with contextlib.suppress(OSError):
            lines += path.read_text(errors="replace").splitlines()
    return "\n".join([line for line in lines if "[error]" in line][:15] or lines[-15:])
