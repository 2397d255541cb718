"""A program under measurement, with all processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.speed.contest import Failed
from benchmarks.speed.measuring import descendants_of

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY = 0.05
"""Seconds: seldom, because looking takes CPU from what is measured."""
LONGEST_STOP = 15.0
"""Seconds after which a program that was told to end is killed."""


class Program:
    """Made by `running`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def pids(self) -> list[int]:
        """The program itself and all that descend from it, parents first."""
        return [self.pid, *descendants_of(self.pid)]

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.kill(pid, number)

    def wait(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Until `condition` holds. Raises Failed after `timeout` seconds, or when the program ends."""
        deadline = time.monotonic() + timeout
        while not condition():
            # What it ended with may be just what was waited for.
            if self._process.poll() is not None and not condition():
                raise Failed(f"ended with {self._process.returncode} before {what}: {self.said()}")
            if time.monotonic() > deadline:
                raise Failed(f"not within {timeout:g} s: {what}: {self.said()}")
            time.sleep(LOOK_EVERY)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        pids = self.pids()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(LONGEST_STOP)
            except subprocess.TimeoutExpired:
                # What was measured has been measured; some peers wait for ever here.
                pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


@contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Program]:
    """Python with these arguments, in the root of the checkout, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(process, log)
        try:
            yield program
        finally:
            program.stop()
