"""What grows, and what does not: many restarts, many receivers, and a long time in which nothing happens."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests import proc
from tests.acceptance.deploying import Connected
from tests.processes import Processes
from tests.supervising import Supervised
from tests.waiting import wait_until

MANY = 200


def test_500_crashes_leave_nothing_behind_in_the_master(processes: Processes) -> None:
    supervised = Supervised(
        processes,
        "a=steady",
        "--processes",
        "a=10",
        "--stable-after",
        "0",
        "--spawn-rate",
        "1000",
        "--log-level",
        "info",
    )
    supervised.wait_line("child_consuming", count=10)

    def crash_all(rounds: range) -> None:
        for number in rounds:
            for pid in proc.children(supervised.pid):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda number=number: consumed() >= (number + 1) * 10, 60, "ten new children consume")  # type: ignore[misc]

    def consumed() -> int:
        return supervised.handle.output().count('"event": "child_consuming"')

    def held() -> tuple[int, int, int]:
        pid = supervised.pid
        return len(proc.descriptors(pid)), len(proc.threads(pid)), len(proc.zombies(pid))

    crash_all(range(1, 6))
    wait_until(lambda: held()[2] == 0, 20, "no zombies")
    before, memory = held(), proc.own_memory(supervised.pid)
    crash_all(range(6, 51))
    wait_until(lambda: held() == before, 20, f"{before} descriptors, threads and zombies")
    assert proc.own_memory(supervised.pid) - memory < 2 * 1024 * 1024
    assert supervised.stop() == 0
    exits = supervised.lines("child_exit", signal="SIGKILL")
    assert len(exits) == len({line["pid"] for line in exits}) == 500
    assert "log_records_dropped" not in supervised.handle.output()


def test_200_receivers_start_reload_and_stop_with_1024_descriptors(processes: Processes, tmp_path: Path) -> None:
    code = tmp_path / "receivers"
    code.write_text(" ".join(f"r{number}=steady" for number in range(MANY)))
    supervised = Supervised(processes, f"@{code}", "--spawn-rate", "1000", TEST_LIMIT="1024 descriptors")
    supervised.wait_line("child_consuming", count=MANY, deadline=120)
    assert proc.title(supervised.pid).endswith(f"{MANY}/{MANY}")
    code.write_text(" ".join(f"r{number}=talk" for number in range(MANY)))
    supervised.send(signal.SIGHUP)
    supervised.wait_line("reload_ok", deadline=180, n=MANY)
    assert len(proc.children(supervised.pid)) == MANY + 1
    soft, _ = resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE)
    assert len(proc.descriptors(supervised.pid)) < soft
    supervised.send(signal.SIGTERM)
    assert supervised.wait(60) == 0
    assert {line["code"] for line in supervised.lines("child_exit")} == {0}


def test_an_idle_master_sleeps(connected: Connected, capsys: pytest.CaptureFixture[str]) -> None:
    connected.clean(*(f"r{number}" for number in range(8)))
    connected.app.write("1", "for number in range(8):\n    receive(f'r{number}')\n")
    connected.start(children=8)
    connected.wait_running(*(f"{connected.prefix}r{number}#0" for number in range(8)))
    pid = connected.pid
    waits, seconds, began = proc.waits(pid), proc.processor_seconds(pid), time.monotonic()
    time.sleep(10.0)
    waits, seconds = proc.waits(pid) - waits, proc.processor_seconds(pid) - seconds
    passed = time.monotonic() - began
    with capsys.disabled():
        print(f"\nidle master of 8 children: {waits} wake-ups, {seconds / passed:.2%} of a core")
    assert waits <= passed / 2, "less than one wake-up in two seconds"
    assert connected.stop() == 0
