"""Children of a test by a real fork, and what they log."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain_events.supervisor.logs import LogLine, held_across_fork

PATIENCE = 60.0
"""Seconds for what takes a moment: nobody is so slow, only what hangs. Half of it is far from both."""
log = logging.getLogger("app.handlers")


class Sink(logging.Handler):
    """Keeps the records that it was given."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def messages(self, name: str = log.name) -> list[str]:
        return [record.getMessage() for record in self.records if record.name == name]

    def dropped(self) -> list[int]:
        found = [
            re.fullmatch(r"event=log_records_dropped receiver=\S+ slot=\S+#\d+ pid=\d+ n=(\d+)", r.getMessage())
            for r in self.records
        ]
        return [int(match[1]) for match in found if match]


@contextmanager
def only_sink() -> Iterator[Sink]:
    """The only one of the root logger."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [sink := Sink()]
    sink.setFormatter(logging.Formatter("%(levelname)s:%(message)s"))
    root.setLevel(logging.INFO)
    try:
        yield sink
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def stderr_into(path: Path) -> Iterator[None]:
    """Descriptor 2 goes to this file. Not a fixture: pytest would put its own file there when the test begins."""
    before = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def fork(body: Callable[[], object]) -> int:
    """Run `body` in a child, which ends with 0, or with 70 when it raised."""
    with held_across_fork():
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        body()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def fork_child(line: LogLine, body: Callable[[], object], timeout: float = PATIENCE) -> int:
    def live() -> None:
        line.in_child()
        body()
        line.close_in_child(timeout)

    pid = fork(live)
    line.in_master()
    return pid


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)


def status_of(pid: int) -> int:
    """The exit code of a child, negative for a signal. Kills one that hangs."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"child {pid} hangs")
        time.sleep(0.002)


def run_child(body: Callable[[], object], name: str = "a#0", bound: int = 5000) -> None:
    line = LogLine(name, bound)
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)


def open_descriptors() -> int:
    gc.collect()  # what other tests have left open does not end between two counts
    return len(os.listdir("/dev/fd"))
