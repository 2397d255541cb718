"""As the process with pid 1, and wherever else nobody looks after what is left over."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import proc
from tests.acceptance.deploying import COMMAND, FLAGS, Deployed
from tests.acceptance.trouble import DEADLINE, Master
from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]

# At its start a child leaves programs behind that end at once, and one family that hears no SIGTERM.
LEAVING = """
import subprocess

receive("one")
receive("two")


@child_started
def leave():
    for _ in range(10):
        subprocess.run(["sh", "-c", "sleep 0.1 & exit"], check=True)
    deaf = "trap '' TERM HUP INT; "
    family = f'{deaf} (sh -c "{deaf} sleep 600 & wait; sleep 600" & wait; sleep 600) & wait; sleep 600'
    subprocess.Popen(["sh", "-c", family], start_new_session=True)
"""


def can_be_first() -> str:
    """Why not."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1) here"
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    return f"no pid namespaces for us: {done.stderr.strip()}" if done.returncode else ""


WHY_NOT = can_be_first()
FIRST = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
BOTH = pytest.mark.parametrize(
    "wrapper", [pytest.param(UNSHARE, marks=FIRST, id="pid 1"), pytest.param([], id="plain")]
)


class Contained:
    """A master, perhaps below a wrapper that gives it the pid 1."""

    def __init__(self, processes: Processes, deployed: Deployed, wrapper: Sequence[str], *flags: str) -> None:
        self._deployed = deployed
        self._flags = [*FLAGS, "--control", str(deployed.control), *flags]
        self.handle: Handle = processes.start([*wrapper, *COMMAND, "app", *self._flags], cwd=deployed.app.folder)
        self._is_wrapped = bool(wrapper)

    @property
    def pid(self) -> int:
        """As seen from here."""
        if not self._is_wrapped:
            return self.handle.pid
        return wait_until(lambda: proc.children(self.handle.pid), DEADLINE, "the master")[0]

    def count(self, event: str) -> int:
        return self.handle.output().count(f'"event": "{event}"')

    def wait(self, event: str, count: int) -> None:
        wait_until(
            lambda: self.count(event) >= count or self.handle.returncode is not None, DEADLINE, f"{count} x {event}"
        )
        assert self.handle.returncode is None, self.handle.output()[-4000:]

    def stop(self, number: int = signal.SIGTERM) -> int:
        os.kill(self.pid, number)
        code = self.handle.wait(DEADLINE)
        assert self.handle.group() == [], self.handle.output()[-4000:]
        return code


@BOTH
def test_strangers_are_reaped_while_it_runs_and_ended_with_it(
    processes: Processes, deployed: Deployed, wrapper: list[str]
) -> None:
    deployed.app.write("1", LEAVING)
    master = Contained(processes, deployed, wrapper)
    master.wait("child_consuming", 2)
    if wrapper:
        assert "master app" in proc.title(master.pid)
    for child in [pid for pid in proc.children(master.pid) if "receiver" in proc.title(pid)]:
        os.kill(child, signal.SIGKILL)
    master.wait("child_exit", 2)
    master.wait("child_consuming", 4)
    os.kill(master.pid, signal.SIGHUP)
    master.wait("reload_ok", 1)
    # Two generations have left 20 short programs each, the third lives.
    wait_until(lambda: proc.zombies(master.pid) == [], DEADLINE, "no zombies")
    adopted = [pid for pid in proc.children(master.pid) if "sleep 600" in proc.title(pid)]
    assert len(adopted) >= 4, "what may be wanted is left alone"
    assert master.stop() == 0
    assert "ended what handlers have left behind" in master.handle.output()
    assert "Traceback" not in master.handle.output()


@FIRST
def test_as_pid_1_children_are_restarted_scaled_and_reloaded_as_anywhere(
    processes: Processes, deployed: Deployed
) -> None:
    deployed.app.write("1", "receive('one')\nreceive('two')\n")
    master = Contained(processes, deployed, UNSHARE)
    master.wait("child_consuming", 2)
    assert deployed.status()["master"]["pid"] == 1
    assert deployed.operate("scale", "one=2")[0] == 0
    master.wait("child_consuming", 3)
    os.kill(proc.children(master.pid)[0], signal.SIGKILL)
    master.wait("child_consuming", 4)
    deployed.app.write("2", "receive('one')\nreceive('two')\n")
    deployed.reload()
    loader = next(pid for pid in proc.children(master.pid) if "loader" in proc.title(pid))
    assert all(proc.parent(pid) == master.pid for pid in (loader, *proc.children(master.pid)))
    os.kill(loader, signal.SIGKILL)
    master.wait("reload_ok", 2)
    assert master.stop(signal.SIGINT) == 0


@FIRST
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_as_pid_1_it_can_be_stopped_while_it_imports(
    processes: Processes, deployed: Deployed, number: signal.Signals
) -> None:
    # The kernel gives a process with pid 1 no signal that it has no handler for.
    deployed.app.write("1", "open('importing', 'w').close()\ntime.sleep(600)\n")
    master = Contained(processes, deployed, UNSHARE)
    wait_until((deployed.app.folder / "importing").exists, DEADLINE)
    assert master.stop(number) == (0 if number == signal.SIGTERM else 130)


@pytest.mark.parametrize(
    "closed", [which for n in range(4) for which in itertools.combinations(("0<", "1>", "2>"), n)], ids="".join
)
def test_whatever_standard_descriptors_are_closed_it_starts_reloads_and_stops(
    processes: Processes, deployed: Deployed, closed: tuple[str, ...]
) -> None:
    deployed.app.write("1", "receive('one')\nprint('hello')\nsys.stderr and sys.stderr.write('hello')\n")
    redirections = " ".join(f"{which}&-" for which in closed)
    text = f"exec {' '.join(COMMAND)} app --control {deployed.control} {redirections}"
    handle = processes.start(["sh", "-c", text], cwd=deployed.app.folder)
    deployed.master = Master(handle)
    first = deployed.wait_running("one#0")
    assert deployed.status()["receivers"][0]["state"] == "consuming"
    deployed.reload()
    second = deployed.wait_running("one#0")
    assert set(first) != set(second)
    for pid in (handle.pid, *second, *deployed.loaders):
        opened = proc.descriptors(pid)
        assert {0, 1, 2} <= set(opened), "a pipe of ours must not get such a number"
        for number, which in enumerate(("0<", "1>", "2>")):
            # Python 3.14 on Debian opens its libffi at the start: then that has the number.
            is_filled = opened[number] == "/dev/null" or "/libffi.so" in opened[number]
            assert is_filled == (which in closed or number == 0), opened
    handle.terminate()
    assert handle.wait(DEADLINE) == 0
    assert handle.group() == []
    assert "Traceback" not in handle.output()


def test_manage_py_too_starts_without_standard_descriptors(processes: Processes, deployed: Deployed) -> None:
    folder = deployed.app.folder
    deployed.app.write("1", "receive('one')\n")
    (folder / "project.py").write_text("INSTALLED_APPS = ['domain_events.django']\n")
    text = f"exec {sys.executable} -m django domain_events_supervisor app --control {deployed.control} <&- >&- 2>&-"
    environment = {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{folder}:{ROOT}"}
    handle = processes.start(["sh", "-c", text], env=environment, cwd=folder)
    deployed.master = Master(handle)
    [child] = deployed.wait_running("one#0")
    for pid in (handle.pid, child):
        opened = [proc.descriptors(pid)[number] for number in (0, 1, 2)]
        assert all(path == "/dev/null" or "/libffi.so" in path for path in opened), opened
    assert deployed.stop() == 0


def test_a_lock_is_held_by_the_master_alone_and_free_after_its_end(deployed: Deployed, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    deployed.app.write("1", "receive('one')\n")
    deployed.start("--lock", str(lock), children=1)
    deployed.reload()
    holders = [
        pid for pid in (deployed.pid, *proc.children(deployed.pid)) if str(lock) in proc.descriptors(pid).values()
    ]
    assert holders == [deployed.pid], "not children, not a loader"
    assert lock.read_text() == f"{deployed.pid}\n"
    assert deployed.stop() == 0
    deployed.start("--lock", str(lock), children=1)
    assert deployed.stop() == 0
