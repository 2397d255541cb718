"""Worn children are replaced between two events: nothing is cut, handled twice, or left alone meanwhile."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.service import Service
from tests.acceptance.trouble import DEADLINE, Line, Master, Trouble
from tests.processes import ROOT, Processes
from tests.waiting import wait_until

RECYCLED = 75


@pytest.fixture
def trouble(service: Service, processes: Processes) -> Trouble:
    return Trouble(service, processes)


def fewest_consuming(master: Master) -> int:
    """How few children consumed at the worst moment, after the first time that all of them did, before the stop."""
    consuming, seen, fewest = set[int](), 0, sys.maxsize
    expected = len({line["slot"] for line in master.lines("child_start")})
    for line in master.log():
        if line.get("event") == "stop_begin":
            break
        if line.get("event") == "child_consuming":
            consuming.add(line["pid"])
        elif line.get("event") == "child_exit":
            consuming.discard(line["pid"])
        seen = max(seen, len(consuming))
        if seen >= expected:
            fewest = min(fewest, len(consuming))
    return fewest


def check_recycled(master: Master, at_least: int) -> list[Line]:
    """The ends of children before the stop; each was a recycling, and none counts as a restart."""
    lines = master.log()
    stop = next(n for n, line in enumerate(lines) if line.get("event") == "stop_begin")
    ends = [line for line in lines[:stop] if line.get("event") == "child_exit"]
    assert len(ends) >= at_least
    assert {line["code"] for line in ends} == {RECYCLED}
    assert {line["n"] for line in master.lines("child_start")} == {0}, "restarts"
    assert all(line["level"] == "INFO" for line in ends)
    return ends


def status(control: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "domain-events", "status", "--json", "--control", control],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("options", [{}, {"threads": 4}, {"concurrency": 4}], ids=["plain", "threads", "coroutines"])
def test_after_so_many_events_a_child_is_replaced_by_one_that_consumes_already(
    trouble: Trouble, options: dict[str, object], tmp_path: Path
) -> None:
    control = tmp_path / "control.sock"
    master = trouble.start("--max-events", "10", "--control", str(control), work=options)
    trouble.send_many("work", *({"n": n, "do": "sleep", "seconds": 0.02} for n in range(100)))
    trouble.wait_handled(range(100))
    wait_until(lambda: len(master.lines("child_exit")) >= 2, DEADLINE, "the worn are gone")

    def processes() -> list[dict[str, Any]]:
        [receiver] = status(control)["receivers"]
        return list(receiver["processes"])

    # One that is worn may be leaving still.
    wait_until(lambda: sum(each["handled"] for each in processes()) == 100, DEADLINE, "100 counted")
    assert processes()[0]["restarts"] == 0
    assert master.stop() == 0
    check_recycled(master, at_least=2)
    assert fewest_consuming(master) == 1
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    # Nobody has handled more than he may, but for what came while the next one was on its way.
    assert len({note["pid"] for note in trouble.notes("work", "end")}) >= 2
    trouble.check_ledger()


def test_of_several_processes_one_at_a_time_is_replaced(trouble: Trouble) -> None:
    master = trouble.start("--max-events", "20", work={"processes": 3}, other={})
    trouble.send_many("work", *({"n": n, "do": "sleep", "seconds": 0.01} for n in range(300)))
    trouble.wait_handled(range(300))
    wait_until(lambda: len(master.lines("child_exit")) >= 3, DEADLINE, "three were replaced")
    assert master.stop() == 0
    ends = check_recycled(master, at_least=3)
    assert {line["receiver"] for line in ends} == {f"{trouble.prefix}work"}
    assert fewest_consuming(master) == 4
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    trouble.check_ledger()


def test_an_idle_child_is_replaced_when_it_is_old_and_a_busy_one_finishes_its_event(trouble: Trouble) -> None:
    # Signs of life come eight times in a --hang-timeout, and with them a look at the clock.
    master = trouble.start("--max-age", "1", "--hang-timeout", "8", work={}, other={})
    trouble.send("work", 0, do="sleep", seconds=3.0)
    trouble.wait_handled([0])
    master.wait_lines("child_exit", receiver=f"{trouble.prefix}work")
    master.wait_lines("child_exit", receiver=f"{trouble.prefix}other")
    trouble.send("work", 1)
    trouble.wait_handled([1])
    assert master.stop() == 0
    check_recycled(master, at_least=2)
    assert all("s old" in line["reason"] for line in master.lines("child_recycle"))
    assert fewest_consuming(master) == 2
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    trouble.check_ledger()


def test_a_child_that_leaks_is_replaced_before_it_is_too_large(trouble: Trouble) -> None:
    master = trouble.start("--max-rss", "150M", work={})
    trouble.send_many("work", *({"n": n, "do": "leak", "mib": 5} for n in range(40)))
    trouble.wait_handled(range(40))
    master.wait_lines("child_exit")
    trouble.send("work", 40)
    trouble.wait_handled([40])
    assert master.stop() == 0
    check_recycled(master, at_least=1)
    assert "MiB of memory" in master.lines("child_recycle")[0]["reason"]
    assert fewest_consuming(master) == 1
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    trouble.check_ledger()


def test_where_only_one_may_consume_the_old_one_leaves_first(trouble: Trouble) -> None:
    master = trouble.start("--max-events", "10", work={"single_active": True})
    trouble.send_many("work", *({"n": n} for n in range(60)))
    trouble.wait_handled(range(60))
    wait_until(lambda: master.lines("child_exit"), DEADLINE, "one was replaced")
    assert master.stop() == 0
    check_recycled(master, at_least=1)
    order = [
        (line["event"], line["pid"]) for line in master.log() if line.get("event") in ("child_start", "child_exit")
    ]
    starts = [pid for event, pid in order if event == "child_start"]
    for old, new in itertools.pairwise(starts):
        assert order.index(("child_exit", old)) < order.index(("child_start", new))
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    # basic.get is not for such a queue: it is counted.
    trouble.queues.wait_count(f"{trouble.prefix}work", 0)
    assert trouble.take_dead() == []


def test_a_successor_that_does_not_boot_leaves_the_old_one_in_its_place(trouble: Trouble) -> None:
    master = trouble.start("--max-events", "5", "--boot-timeout", "2", work={})
    [old] = master.pids()
    trouble.refuse_to_boot()
    trouble.send_many("work", *({"n": n} for n in range(20)))
    trouble.wait_handled(range(20))
    [line] = wait_until(
        lambda: master.messages("#0 stays, for its successor does not consume", "did not boot (exit 71)")[:1],
        DEADLINE,
        "the master says so",
    )
    assert line
    trouble.send("work", 20)
    trouble.wait_handled([20])
    assert {note["pid"] for note in trouble.notes("work", "end")} == {old}
    assert master.pids() == [old]
    # It is tried again, and this time it works.
    trouble.refuse_to_boot(False)
    master.wait_lines("child_exit", pid=old)
    trouble.send("work", 21)
    trouble.wait_handled([21])
    assert set(trouble.begun().values()) == set(trouble.handled().values()) == {1}
    assert fewest_consuming(master) == 1
    # The hook's own error, each time that it was tried.
    tries = len(master.lines("child_exit", code=71))
    assert master.stop(tracebacks=tries) == 0
    trouble.check_ledger()
