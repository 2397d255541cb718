"""A running master and the operator's command, both as they are started."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import proc
from tests.acceptance.deploying import COMMAND, FLAGS, OPERATOR, Connected, Deployed, order
from tests.acceptance.trouble import DEADLINE
from tests.processes import Processes
from tests.waiting import wait_until

THREE = "receive('one')\nreceive('two', processes=2)\n"
SLOTS = ("one#0", "two#0", "two#1")
# What a child does at its start and at its end stands in files.
MOODY = (
    "\n\n@child_started\ndef start():\n    if os.path.exists('fail'):\n        raise RuntimeError('no cup of tea')\n"
    "    while os.path.exists('wait'):\n        time.sleep(0.02)\n"
    "\n\n@child_stopping\ndef leave():\n    while os.path.exists('stay'):\n        time.sleep(0.02)\n\n\n"
)


def processes_of(deployed: Deployed, name: str) -> list[dict[str, Any]]:
    return list(deployed.receiver(name)["processes"])


def wait_state(deployed: Deployed, name: str, state: str) -> dict[str, Any]:
    """The receiver's part of the status, once it is in this state."""

    def found() -> dict[str, Any]:
        receiver = deployed.receiver(name)
        return receiver if receiver["state"] == state else {}

    return wait_until(found, DEADLINE, f"{name} {state}", pause=0.1)


@contextmanager
def there(path: Path) -> Iterator[None]:
    """A file that is there meanwhile."""
    path.touch()
    yield
    path.unlink()


# status


def test_the_status_of_a_service_at_work_is_that_of_the_contract(connected: Connected) -> None:
    connected.clean("work", "other")
    connected.app.write("1", "receive('work', max_retries=1)\nreceive('other', processes=2)\n")
    before = time.time()
    connected.start(children=3)
    connected.send("work.asked", 1, 2, 3)
    connected.send("work.asked", 4, retry=1)
    connected.send("work.asked", 5, fail=True)
    connected.wait_handled("work", [1, 2, 3, 4])
    connected.queues.wait_count(f"{connected.prefix}work:dead", 1)
    connected.send("work.asked", 6, seconds=600)
    name = f"{connected.prefix}work"
    wait_until(lambda: connected.receiver(name)["processes"][0]["in_flight"], DEADLINE, "an event in hand")
    code, out, err = connected.operate("status", "--json")
    assert (code, err) == (0, "")
    status = json.loads(out)
    assert set(status) == {"master", "receivers"}
    master = status["master"]
    assert (set(master), master["pid"], master["state"]) == ({"pid", "state", "uptime"}, connected.pid, "running")
    assert isinstance(master["uptime"], float)
    assert 0 < master["uptime"] < time.time() - before
    work, other = status["receivers"]
    for receiver in (work, other):
        assert set(receiver) == {"name", "state", "processes", "last_exit"}
        assert receiver["state"] == "consuming"
        assert receiver["last_exit"] is None
    assert [process["slot"] for process in other["processes"]] == [f"{connected.prefix}other#{n}" for n in (0, 1)]
    [process] = work["processes"]
    uptime, rss = process.pop("uptime"), process.pop("rss")
    assert isinstance(uptime, float)
    assert 0 < uptime <= master["uptime"]
    assert isinstance(rss, int)
    assert 2**20 < rss < 2**30
    [pid] = [pid for pid, slot in connected.running().items() if slot == f"{name}#0"]
    assert re.fullmatch(r"[0-9a-f-]{36}", process.pop("in_flight"))
    assert process == {
        "slot": f"{name}#0",
        "pid": pid,
        "state": "consuming",
        "restarts": 0,
        "handled": 4,
        "retried": 1,
        "dead_lettered": 1,
    }
    os.kill(pid, signal.SIGKILL)
    [line] = connected.master.wait_lines("child_exit", 1)
    receiver = wait_state(connected, name, "consuming")
    assert receiver["last_exit"].pop("at") == pytest.approx(time.time(), abs=DEADLINE)
    assert receiver["last_exit"] == {"code": None, "signal": "SIGKILL", "in_flight": line["in_flight"]}
    [process] = receiver["processes"]
    assert (process["restarts"], process["handled"]) == (1, 4), "what was counted before the crash stays"
    wait_until(lambda: connected.receiver(name)["processes"][0]["in_flight"], DEADLINE, "it is in hand again")
    assert connected.stop(signal.SIGQUIT) == 80


def test_the_states_along_a_life(deployed: Deployed) -> None:
    folder = deployed.app.folder
    deployed.app.write("1", f"receive('steady')\nreceive('one')\n{MOODY}")
    with there(folder / "wait"):
        deployed.start("--backoff", "0.5:2", "--stable-after", "600", children=0)
        wait_until(deployed.control.exists, DEADLINE)
        wait_until(lambda: len(proc.children(deployed.pid)) == 2, DEADLINE, "two children that boot")
        assert deployed.operate("status")[0] == 1
        assert deployed.status()["master"]["state"] == "starting"
        assert [receiver["state"] for receiver in deployed.status()["receivers"]] == ["starting"] * 2
    deployed.wait_running("steady#0", "one#0")
    assert deployed.operate("status")[0] == 0
    assert deployed.status()["master"]["state"] == "running"

    with there(folder / "fail"):
        os.kill(processes_of(deployed, "one")[0]["pid"], signal.SIGKILL)
        wait_state(deployed, "one", "backoff")
        assert deployed.operate("status")[0] == 1
        receiver = wait_state(deployed, "one", "failed")
        [process] = receiver["processes"]
        assert process["restarts"] >= 3
        assert {key: process[key] for key in ("pid", "uptime", "in_flight", "rss")} == dict.fromkeys(
            ("pid", "uptime", "in_flight", "rss")
        )
        assert (receiver["last_exit"]["code"], receiver["last_exit"]["signal"]) == (71, None)
        assert deployed.receiver("steady")["state"] == "consuming"
    wait_state(deployed, "one", "consuming")

    with there(folder / "stay"):
        assert deployed.operate("scale", "one=0")[0] == 0
        assert wait_state(deployed, "one", "draining")["processes"][0]["state"] == "draining"
    stopped = wait_state(deployed, "one", "stopped")
    assert stopped["processes"] == []
    assert deployed.operate("status")[0] == 1
    assert deployed.operate("scale", "one=1")[0] == 0
    wait_state(deployed, "one", "consuming")

    with there(folder / "stay"):
        deployed.master.handle.terminate()
        deployed.master.wait_lines("stop_begin")
        assert deployed.status()["master"]["state"] == "draining"
        assert deployed.receiver("one")["state"] == "draining"
    assert deployed.stop() == 0


# Orders


def test_a_restart_replaces_the_processes_of_one_receiver_and_no_others(deployed: Deployed) -> None:
    deployed.app.write("1", THREE)
    deployed.start(children=3)
    before = deployed.wait_running(*SLOTS)
    assert deployed.operate("restart", "two") == (0, "", "domain-events: two has been restarted\n")
    after = deployed.wait_running(*SLOTS)
    assert {slot for pid, slot in after.items() if pid in before} == {"one#0"}
    deployed.master.wait_lines("child_exit", 2)
    lines = deployed.master.log()
    for slot in ("two#0", "two#1"):
        [old], [new] = ([pid for pid, name in pids.items() if name == slot] for pids in (before, after))
        assert order(lines, "child_consuming", pid=new) < order(lines, "child_exit", pid=old, code=0)
    assert [process["restarts"] for process in processes_of(deployed, "two")] == [0, 0], "only crashes count"
    assert deployed.receiver("two")["last_exit"]["code"] == 0
    assert deployed.loaders == [], "it is the code of before"
    assert deployed.stop() == 0


def test_a_restart_that_does_not_work_keeps_the_old_child_and_says_so(deployed: Deployed) -> None:
    deployed.app.write("1", f"receive('one')\n{MOODY}")
    deployed.start(children=1)
    before = deployed.wait_running("one#0")
    with there(deployed.app.folder / "fail"):
        code, _, err = deployed.operate("restart", "one")
    assert (code, err) == (1, "domain-events: one#0: did not boot (exit 71)\n")
    assert deployed.wait_running("one#0") == before
    assert deployed.stop() == 0


def test_receivers_are_scaled_up_and_down_to_nothing_and_back(deployed: Deployed) -> None:
    deployed.app.write("1", THREE)
    deployed.start(children=3)
    before = deployed.wait_running(*SLOTS)
    assert deployed.operate("scale", "one=3") == (0, "", "domain-events: one has 3 processes now\n")
    deployed.wait_running("one#0", "one#1", "one#2", "two#0", "two#1")
    assert deployed.operate("scale", "one=1")[0] == 0
    assert deployed.wait_running(*SLOTS) == before, "the youngest go"
    assert deployed.operate("scale", "two=0")[0] == 0
    deployed.wait_running("one#0")
    assert deployed.operate("restart", "two")[0] == 0, "there is nothing to be done"
    assert deployed.operate("scale", "two=1")[0] == 0
    deployed.wait_running("one#0", "two#0")
    assert deployed.stop() == 0


def test_ttin_and_ttou_change_those_that_have_several_processes(deployed: Deployed) -> None:
    deployed.app.write("1", THREE)
    deployed.start(children=3)
    deployed.master.handle.send(signal.SIGTTIN)
    deployed.wait_running(*SLOTS, "two#2")
    for _ in range(2):
        deployed.master.handle.send(signal.SIGTTOU)
        wait_until(lambda: len(deployed.running()) < 4, DEADLINE)
    deployed.wait_running("one#0", "two#0")
    deployed.master.handle.send(signal.SIGTTOU)
    deployed.master.handle.send(signal.SIGTTIN)
    deployed.wait_running(*SLOTS)
    assert deployed.stop() == 0


def test_ttin_and_ttou_change_all_where_none_has_several(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\nreceive('two')\n")
    deployed.start(children=2)
    deployed.master.handle.send(signal.SIGTTIN)
    deployed.wait_running("one#0", "one#1", "two#0", "two#1")
    deployed.master.handle.send(signal.SIGTTOU)
    deployed.wait_running("one#0", "two#0")
    assert deployed.stop() == 0


def test_exit_codes_tell_what_became_of_it(deployed: Deployed) -> None:
    deployed.app.write("1", THREE)
    deployed.start(children=3)
    assert deployed.operate("reload")[0] == 0
    deployed.master.wait_lines("reload_ok")
    for arguments, code, told in [
        (("restart", "tow"), 4, "did you mean 'two'?"),
        (("scale", "tow=2"), 4, "did you mean 'two'?"),
        (("scale", "two=-1"), 2, "NAME=N"),
        (("relaod",), 2, "relaod"),
    ]:
        done = deployed.operate(*arguments)
        assert (done[0], told in done[2]) == (code, True), done
    assert deployed.stop() == 0
    for arguments in [("status",), ("restart", "two"), ("reload", "--wait")]:
        assert deployed.operate(*arguments)[0] == 3


def test_a_restart_that_waits_for_a_drain_when_the_master_stops_is_told_so(deployed: Deployed) -> None:
    deployed.app.write("1", f"receive('one')\n{MOODY}")
    deployed.start(children=1)
    with there(deployed.app.folder / "stay"), deployed.operating("restart", "one") as waiter:
        deployed.master.wait_lines("child_consuming", 2)
        deployed.master.handle.terminate()
        assert waiter.communicate(timeout=DEADLINE) == ("", "domain-events: the master is stopping\n")
        assert waiter.returncode == 1
    assert deployed.stop() == 0


# The socket


def test_the_socket_is_for_its_owner_alone_and_stands_in_the_runtime_directory(
    processes: Processes, deployed: Deployed, tmp_path: Path
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    deployed.app.write("1", "receive('one')\n")
    deployed.control = runtime / "control.sock"
    environment = {"RUNTIME_DIRECTORY": str(runtime)}
    handle = processes.start([*COMMAND, "app", *FLAGS], env=environment, cwd=deployed.app.folder)
    wait_until(lambda: "child_consuming" in handle.output() or handle.returncode is not None, DEADLINE)
    mode = deployed.control.stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    done = subprocess.run([*OPERATOR, "status", "--json"], env={**os.environ, **environment}, capture_output=True)
    assert done.returncode == 0
    assert json.loads(done.stdout)["master"]["pid"] == handle.pid
    handle.terminate()
    assert handle.wait() == 0
    assert not deployed.control.exists()


@pytest.mark.parametrize("flag", ["--lock", "--control"])
def test_a_second_master_exits_73_and_leaves_the_first_alone(deployed: Deployed, tmp_path: Path, flag: str) -> None:
    deployed.app.write("1", "receive('one')\n")
    lock = ("--lock", str(tmp_path / "lock"))
    deployed.start(*lock, children=1)
    flags = lock if flag == "--lock" else ("--control", str(deployed.control))
    done = subprocess.run(
        [*COMMAND, "app", *flags], cwd=deployed.app.folder, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 73
    assert f"pid {deployed.pid}" in done.stderr
    assert "child_start" not in done.stderr
    assert deployed.operate("status")[0] == 0
    assert deployed.stop() == 0


def test_after_a_killed_master_the_next_takes_socket_and_lock(deployed: Deployed, tmp_path: Path) -> None:
    deployed.app.write("1", "receive('one')\n")
    lock = ("--lock", str(tmp_path / "lock"))
    first = deployed.start(*lock, children=1)
    first.handle.kill()
    first.handle.wait()
    assert deployed.operate("status")[0] == 3
    second = deployed.start(*lock, children=1)
    assert deployed.status()["master"]["pid"] == second.pid
    assert deployed.stop() == 0
