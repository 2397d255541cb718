"""What grows, and what does not: many restarts, many receivers, and a long time in which nothing happens."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain_events.supervisor.control_client import MasterUnreachable, ask
from domain_events.supervisor.protocol import Done, Reload, Request, Restart, Scale, Status
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
    wait_until(lambda: held()[2] == 0, what="no zombies")
    before, memory = held(), proc.own_memory(supervised.pid)
    crash_all(range(6, 51))
    # Those of then may have been some more: what reads the log of a dead child ends a little later.
    wait_until(
        lambda: all(now <= then for now, then in zip(held(), before, strict=True)),
        what=f"at most {before} descriptors, threads and zombies",
    )
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
    wait_until(lambda: proc.title(supervised.pid).endswith(f"{MANY}/{MANY}"), what="all of them in the title")
    code.write_text(" ".join(f"r{number}=talk" for number in range(MANY)))
    supervised.send(signal.SIGHUP)
    supervised.wait_line("reload_ok", deadline=180, n=MANY)
    assert len(proc.children(supervised.pid)) == MANY + 1
    soft, _ = resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE)
    assert len(proc.descriptors(supervised.pid)) < soft
    supervised.send(signal.SIGTERM)
    assert supervised.wait(180) == 0
    assert {line["code"] for line in supervised.lines("child_exit")} == {0}


def test_whatever_is_asked_and_killed_in_whatever_order_the_master_lives_and_good_code_runs(
    processes: Processes, tmp_path: Path
) -> None:
    code, control, dice = tmp_path / "receivers", str(tmp_path / "control"), random.Random(1)
    code.write_text(GOOD)
    flags = ("--boot-timeout", "5", "--stable-after", "0.5", "--give-up-after", "0", "--grace", "3")
    supervised = Supervised(processes, f"@{code}", "--control", control, "--spawn-rate", "100", *flags)
    supervised.wait_line("child_consuming", count=4)
    for _ in range(40):
        disturb(supervised, code, control, dice)
        time.sleep(dice.random() * 0.2)
    code.write_text(GOOD)
    assert ask(control, Reload(wait=True), 120) == Done({})
    for name, number in (("a", 1), ("b", 2), ("c", 1)):
        ask(control, Scale(name, number), 60)

    def settled() -> bool:
        reply = ask(control, Status(), 60)
        assert isinstance(reply, Done)
        receivers: Any = reply.data["receivers"]
        return [(r["state"], len(r["processes"])) for r in receivers] == [("consuming", n) for n in (1, 2, 1)]

    wait_until(settled, 60, "all consume")
    wait_until(lambda: not proc.zombies(supervised.pid), what="no zombies")
    wait_until(lambda: len(proc.threads(supervised.pid)) <= 6, what="one thread for each log")
    assert supervised.stop() == 0
    assert not [line for line in supervised.log() if line["process"] == supervised.pid and "exception" in line]


GOOD = "a=steady b=steady:processes=2 c=steady"
CODES = [
    GOOD,
    "a=talk b=talk c=busy d=steady",
    "a=steady:single_active=true b=crash c=steady",
    "a=slowly:processes=3 c=crash-later",
    "a=never b=steady",
    "a=waiting b=steady",
    "c=leaves-zombies a=away-and-crash",
    "a=steady:timeout=0.5 b=endless:timeout=0.5",
    "a=misconfigured b=talk",
    "a=steady die",
    "broken",
]


def disturb(supervised: Supervised, code: Path, control: str, dice: random.Random) -> None:
    """One thing that may happen to a master."""

    def kill(pids: list[int], *numbers: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it was about to end
            if pids:
                os.kill(dice.choice(pids), dice.choice(numbers))

    def freeze() -> None:
        supervised.send(signal.SIGSTOP)
        time.sleep(0.2)
        supervised.send(signal.SIGCONT)

    def wait_for(what: Request) -> None:
        with contextlib.suppress(MasterUnreachable):  # it has ended
            ask(control, what, 120)

    def request(what: Request) -> None:
        threading.Thread(target=wait_for, args=(what,), daemon=True).start()

    children = proc.children(supervised.pid)
    loaders = [pid for pid in children if "receiver" not in proc.title(pid)]
    receiver = dice.choice("abcd")
    things: list[Callable[[], object]] = [
        lambda: code.write_text(dice.choice(CODES)),
        lambda: kill(children, signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGSTOP, signal.SIGSEGV),
        lambda: kill(loaders, signal.SIGKILL, signal.SIGTERM),
        lambda: request(Scale(receiver, dice.choice([0, 1, 2, 3]))),
        lambda: request(Restart(receiver)),
        lambda: request(Reload(wait=True)),
        lambda: supervised.send(dice.choice([signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])),
        freeze,
    ]
    dice.choice(things)()
    if dice.random() < 0.3:
        supervised.send(signal.SIGHUP)


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
