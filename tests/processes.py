"""Processes that a test starts, and the certainty that none is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent


class Handle:
    """One process in a session of its own, with all that descends from it."""

    def __init__(self, argv: Sequence[str | os.PathLike[str]], env: dict[str, str], cwd: Path, log: Path) -> None:
        self.log = log
        """Where its output goes."""
        self._command = " ".join(os.fspath(arg) for arg in argv)
        self._token = f"TEST_PROCESS={secrets.token_hex(8)}"
        name, _, value = self._token.partition("=")
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                argv,
                env={**env, name: value},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def output(self) -> str:
        """All that it and its children have written so far, standard output and error in one."""
        return self.log.read_text(errors="replace")

    def wait(self, deadline: float = 60.0) -> int:
        """Its exit status, minus the signal's number when one ended it; AssertionError when it lives on."""
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._command} still runs after {deadline:g} s:\n{self.output()[-4000:]}") from None

    def wait_output(self, text: str, deadline: float = 60.0) -> str:
        """The output once it holds `text`; AssertionError when it does not, in time or at its end."""

        def found() -> bool:
            ended = self.returncode is not None  # asked before reading: what was written last is read
            if text in self.output():
                return True
            assert not ended, f"ended ({self.returncode}) without {text!r}:\n{self.output()[-4000:]}"
            return False

        try:
            wait_until(found, deadline, f"{text!r} in the output")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-4000:]}") from None
        return self.output()

    @property
    def returncode(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def send(self, signum: int) -> None:
        """A signal to the process alone."""
        self._process.send_signal(signum)

    def terminate(self) -> None:
        """SIGTERM to the process alone."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process alone: its children live on."""
        self.send(signal.SIGKILL)

    def children(self) -> list[int]:
        """Its direct children that run."""
        return [pid for pid, (parent, _) in _running().items() if parent == self.pid]

    def group(self) -> list[int]:
        """All that runs of its session or descends from it, itself included, its orphans too."""
        self._process.poll()  # reaped, when it has ended
        found = []
        for pid, (_, session) in _running().items():
            # A daemon leaves the session but keeps the environment it was started with.
            if session == self.pid or self._token.encode() in _environment(pid):
                found.append(pid)
        return found

    def end(self) -> None:
        """Kills all of it; AssertionError when something is left."""

        def gone() -> bool:
            for pid in self.group():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.group()

        wait_until(gone, 60, f"the end of {self._command}")
        self._process.wait(60)


class Processes:
    """Starts processes for one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.handles: list[Handle] = []

    def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
    ) -> Handle:
        """Starts `argv`. `env` changes the environment of the test: None takes a variable away."""
        changed = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        log = self._folder / f"process-{len(self.handles) + 1}.log"
        handle = Handle(argv, {name: value for name, value in changed.items() if value is not None}, cwd, log)
        self.handles.append(handle)
        return handle

    def end(self) -> None:
        """Ends all of them and prints what they wrote: pytest shows it when the test failed."""
        problems = []
        for handle in reversed(self.handles):
            try:
                handle.end()
            except AssertionError as problem:
                problems.append(str(problem))
        for handle in self.handles:
            print(f"--- process {handle.pid}, ended with {handle.returncode}:\n{handle.output()}")
        assert not problems, "\n".join(problems)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes; whatever is left of them at the end of the test is killed."""
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def _running() -> dict[int, tuple[int, int]]:
    """pid -> (parent, session) of every process that is no zombie (proc(5))."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state, parent, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
                if state not in "ZX":
                    found[int(entry)] = (int(parent), int(session))
    return found


def _environment(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []
