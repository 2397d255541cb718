"""The operator's command as it is started, and as it is talked to while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.waiting import wait_until

OPERATOR = [sys.executable, str(ROOT / "bin" / "domain-events")]


def operate(
    *args: str, url: str | None = None, stdin: str | bytes = b"", cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs it to its end. `url`: of the broker that the environment names."""
    done = subprocess.run(
        [*OPERATOR, *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env=_environment(url, env),
        cwd=cwd,
        capture_output=True,
        timeout=60,
    )
    out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


class Running:
    """While it runs. Its stdin is a pipe, stdout and stderr are files."""

    def __init__(self, folder: Path, args: tuple[str, ...], url: str | None, env: dict[str, str]) -> None:
        folder.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*OPERATOR, *args],
                env=_environment(url, env),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
            )

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    @property
    def out(self) -> str:
        return self._out.read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="surrogateescape")

    @property
    def lines(self) -> list[str]:
        """Of stdout, the whole ones."""
        return [line for line in self.out.splitlines(keepends=True) if line.endswith("\n")]

    def wait_lines(self, n: int, deadline: float = 60.0) -> list[str]:
        """Of stdout, as soon as there are so many."""
        self._wait(lambda: len(self.lines) >= n, f"{n} lines", deadline)
        return self.lines

    def wait_err(self, text: str, times: int = 1, deadline: float = 60.0) -> None:
        self._wait(lambda: self.err.count(text) >= times, f"{text!r} on stderr", deadline)

    def _wait(self, condition: Callable[[], bool], what: str, deadline: float) -> None:
        def reached() -> bool:
            ended = self.process.poll() is not None
            if condition():
                return True
            assert not ended, f"ended ({self.process.returncode}) without {what}:\n{self.out}{self.err}"
            return False

        try:
            wait_until(reached, deadline, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.out[-4000:]}{self.err[-4000:]}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, deadline: float = 60.0) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs:\n{self.out[-4000:]}{self.err[-4000:]}") from None
        assert "Traceback" not in self.err, self.err
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        assert self.process.stdin is not None
        self.process.stdin.close()


def _environment(url: str | None, env: dict[str, str]) -> dict[str, str]:
    named = {} if url is None else {"DOMAIN_EVENT_BROKER": url}
    return {**os.environ, **named, **env}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """start(*args, url=None, **env): starts it; it is killed at the end of the test."""
    started: list[Running] = []

    def start(*args: str, url: str | None = None, **env: str) -> Running:
        started.append(Running(tmp_path / f"command-{len(started)}", args, url, env))
        return started[-1]

    yield start
    for each in started:
        each.kill()
