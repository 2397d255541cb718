"""New code, without a broker: each new child consumes before its old one leaves, or everything is as before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain_events.supervisor.control_client import ask
from domain_events.supervisor.protocol import Done, Failed, Reload, Reply, Scale
from tests import proc
from tests.processes import Processes
from tests.supervising import PATIENCE, Line, Supervised
from tests.waiting import wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


class Service:
    """A master whose receivers stand in a file."""

    def __init__(self, processes: Processes, folder: Path, receivers: str, *arguments: str, **env: str) -> None:
        self._file = folder / "receivers"
        self.control = str(folder / "control")
        self.write(receivers)
        self.master = Supervised(processes, f"@{self._file}", "--control", self.control, *arguments, **env)
        self.pid = self.master.pid

    def write(self, receivers: str) -> None:
        """The code that the next reload brings in."""
        new = self._file.with_suffix(".new")
        new.write_text(receivers)
        new.replace(self._file)

    def wait_consuming(self, *slots: str) -> None:
        for slot in slots:
            self.master.wait_line("child_consuming", slot=slot)

    def reload(self, receivers: str) -> None:
        """Asks for it, and returns."""
        self.write(receivers)
        self.master.send(signal.SIGHUP)

    def reloaded(self, receivers: str) -> None:
        """Once it has worked."""
        count = len(self.master.lines("reload_ok")) + 1
        self.reload(receivers)
        self.master.wait_line("reload_ok", count=count)

    def failed(self, receivers: str) -> str:
        """The reason, once it has failed."""
        count = len(self.master.lines("reload_failed")) + 1
        self.reload(receivers)
        return str(self.master.wait_line("reload_failed", count=count)["reason"])

    def asked(self, request: Reload | Scale) -> Waiter:
        return Waiter(self.control, request)

    @property
    def connections(self) -> int:
        """Sockets that the master has open, those of who asks among them."""
        return sum(target.startswith("socket:") for target in proc.descriptors(self.pid).values())

    @property
    def loaders(self) -> list[int]:
        return [pid for pid in proc.children(self.pid) if "loader" in proc.title(pid)]

    def wait_loader(self) -> int:
        """The one that has imported the code of now."""
        return wait_until(lambda: self.loaders, what="a loader")[0]

    def running(self) -> dict[int, str]:
        """The children that consume, by pid, as their titles name them."""
        titles = {pid: proc.title(pid) for pid in proc.children(self.pid)}
        return {pid: title.split()[2] for pid, title in titles.items() if title.endswith(" consuming")}

    def wait_running(self, *slots: str) -> dict[int, str]:
        """Exactly these."""

        def found() -> dict[int, str]:
            running = self.running()
            return running if sorted(running.values()) == sorted(slots) else {}

        return wait_until(found, what=f"{slots} and no others consume")

    def has_new_code(self, pid: int) -> bool:
        """Where the new code talks, and the old one is silent."""
        return any(line["message"] == "new code talks" and line["process"] == pid for line in self.master.log())

    def wait_new_code(self, *slots: str) -> dict[int, str]:
        """Exactly these consume, with the code that talks. What a child says comes by another way than its state."""
        running = self.wait_running(*slots)
        wait_until(lambda: all(self.has_new_code(pid) for pid in running), what=f"new code in {running}")
        return running

    def wait_old_code(self, *slots: str) -> None:
        """Exactly these consume, with the code of before, and nothing is left of the new one."""
        for pid in self.wait_running(*slots):
            assert not self.has_new_code(pid)
        wait_until(lambda: not self.loaders, what="the loader of the failed code is gone")


class Waiter:
    """Somebody who waits for the answer of a master."""

    def __init__(self, path: str, request: Reload | Scale) -> None:
        self._replies: list[Reply] = []
        self._thread = threading.Thread(target=lambda: self._replies.append(ask(path, request, 60)), daemon=True)
        self._thread.start()

    @property
    def is_answered(self) -> bool:
        return bool(self._replies)

    def reply(self) -> Reply:
        self._thread.join(60)
        [reply] = self._replies
        return reply


Start = Callable[..., Service]


@pytest.fixture
def start(processes: Processes, tmp_path: Path) -> Start:
    def call(receivers: str, *arguments: str, **env: str) -> Service:
        return Service(processes, tmp_path, receivers, *arguments, **env)

    return call


def order(lines: list[Line], event: str, **fields: object) -> int:
    """Where the only line with this event and these fields stands."""
    [at] = [n for n, line in enumerate(lines) if {"event": event, **fields}.items() <= line.items()]
    return at


# What a reload does


def test_each_new_child_consumes_before_its_old_one_leaves_and_belongs_to_the_same_master(start: Start) -> None:
    service = start("a=steady:processes=2 b=steady")
    before = service.wait_running("a#0", "a#1", "b#0")
    service.reloaded("a=talk:processes=2 b=talk")
    after = service.wait_new_code("a#0", "a#1", "b#0")
    assert not set(before) & set(after)
    assert {proc.parent(pid) for pid in (*after, *service.loaders)} == {service.pid}
    assert len(service.loaders) == 1
    lines = service.master.log()
    for slot in ("a#0", "a#1", "b#0"):
        [old], [new] = ([pid for pid, name in pids.items() if name == slot] for pids in (before, after))
        assert order(lines, "child_consuming", pid=new) < order(lines, "child_exit", pid=old, code=0)
    pids = sorted(after, key=lambda pid: after[pid])
    begun = [order(lines, "child_start", pid=pid) for pid in pids]
    done = [order(lines, "child_consuming", pid=pid) for pid in pids]
    assert begun[0] < done[0] < begun[1] < done[1] < begun[2] < done[2], "one after the other"
    assert order(lines, "reload_begin") < min(begun) < max(done) < order(lines, "reload_ok", n=3)
    assert service.master.stop() == 0
    assert "left behind" not in service.master.handle.output()


def test_receivers_and_processes_are_those_of_the_new_code(start: Start) -> None:
    service = start("a=steady b=steady c=steady:processes=3")
    service.wait_running("a#0", "b#0", "c#0", "c#1", "c#2")
    service.reloaded("d=talk a=talk:processes=2 c=talk")
    service.wait_new_code("a#0", "a#1", "c#0", "d#0")
    service.reloaded("a=steady")
    service.wait_running("a#0")
    wait_until(lambda: "1/1" in proc.title(service.pid), what="its title")
    assert service.master.stop() == 0


def test_children_of_new_code_are_looked_after_as_all_others(start: Start) -> None:
    service = start("a=steady")
    service.wait_consuming("a#0")
    service.reloaded("a=talk")
    [first] = service.wait_running("a#0")
    os.kill(first, signal.SIGKILL)
    assert service.master.wait_line("child_exit", pid=first)["signal"] == "SIGKILL"
    [second] = service.wait_running("a#0")
    assert (first != second, proc.parent(second)) == (True, service.pid)
    assert list(service.wait_new_code("a#0")) == [second]
    assert service.master.stop() == 0
    assert service.master.lines("child_exit", pid=second)[0]["code"] == 0


def test_an_event_in_hand_is_finished_by_the_old_code(start: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    service = start("a=held b=steady", TEST_GO_ON=str(go_on))
    service.wait_consuming("a#0", "b#0")
    service.reload("a=talk b=talk")
    service.master.wait_line("child_exit", slot="b#0")
    assert service.master.lines("child_exit", slot="a#0") == [], "nobody waits for it, and nobody cuts it"
    go_on.touch()
    service.master.wait_line("reload_ok")
    [line] = service.master.lines("child_exit", slot="a#0")
    assert (line["code"], "in_flight" in line) == (0, False)
    assert service.master.stop() == 0


def test_where_only_one_may_consume_the_old_child_leaves_first(start: Start) -> None:
    service = start("a=steady:single_active=true b=steady")
    [old] = [pid for pid, slot in service.wait_running("a#0", "b#0").items() if slot == "a#0"]
    service.reloaded("a=talk:single_active=true b=talk")
    [new] = [pid for pid, slot in service.wait_running("a#0", "b#0").items() if slot == "a#0"]
    lines = service.master.log()
    assert order(lines, "child_exit", pid=old) < order(lines, "child_start", pid=new)
    reason = service.failed("a=crash:single_active=true b=talk")
    assert reason.startswith("a#0: exit 70; ")
    crashed, *_ = service.master.lines("child_exit", slot="a#0", code=70)

    def last_start() -> dict[str, Any]:
        return service.master.lines("child_start", slot="a#0")[-1]

    wait_until(lambda: seconds(last_start()) >= seconds(crashed), what="somebody is back")
    back = last_start()
    # Nothing but the grace could be waited for, and that is much longer.
    assert seconds(back) - seconds(crashed) < PATIENCE, "nobody consumes meanwhile: nothing else is waited for"
    service.wait_new_code("a#0", "b#0")
    assert service.master.stop() == 0


def test_while_the_broker_is_away_new_code_takes_over_all_the_same(start: Start) -> None:
    service = start("a=waiting b=waiting")
    service.master.wait_line("child_start", slot="b#0")
    service.reloaded("a=waiting b=waiting c=waiting")
    wait_until(lambda: len(proc.children(service.pid)) == 4, what="three children and a loader")
    assert service.master.stop() == 0


def test_a_receiver_that_failed_before_does_not_keep_the_others_from_new_code(start: Start) -> None:
    service = start("a=steady b=crash", "--backoff", "0.05:30")
    service.wait_consuming("a#0")
    service.master.wait_line("child_exit", slot="b#0")
    service.reloaded("a=talk b=crash")
    service.wait_new_code("a#0")
    service.reloaded("a=talk b=talk")
    service.wait_running("a#0", "b#0")
    assert service.master.stop() == 0


def test_the_number_of_processes_that_an_operator_chose_outlives_a_reload(start: Start) -> None:
    service = start("a=steady b=steady")
    service.wait_consuming("a#0", "b#0")
    assert service.asked(Scale("a", 3)).reply() == Done({})
    assert service.asked(Scale("b", 0)).reply() == Done({})
    service.wait_running("a#0", "a#1", "a#2")
    service.reloaded("a=talk b=talk")
    service.wait_new_code("a#0", "a#1", "a#2")
    assert service.asked(Scale("b", 1)).reply() == Done({})
    service.wait_running("a#0", "a#1", "a#2", "b#0")
    assert service.master.stop() == 0


def test_who_asks_during_a_reload_gets_another_one_after_it_and_all_are_answered(start: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    service = start("a=steady", TEST_GO_ON=str(go_on))
    service.wait_consuming("a#0")
    service.write("a=when-told")
    first = service.asked(Reload(wait=True))
    service.master.wait_line("child_start", count=2, slot="a#0")
    service.write("a=talk")
    connected = service.connections
    others = [service.asked(Reload(wait=True)) for _ in range(3)]
    wait_until(lambda: service.connections >= connected + 3, what="three more ask")
    service.master.send(signal.SIGHUP)
    go_on.touch()
    assert [waiter.reply() for waiter in (first, *others)] == [Done({})] * 4
    service.wait_new_code("a#0")
    # Two, but for a machine so slow that the first was over when the master heard what the last of them asked.
    assert len(service.master.lines("reload_begin")) <= 3
    assert service.master.stop() == 0


def test_ten_reloads_leave_nothing_behind(start: Start) -> None:
    service = start("a=steady:processes=2 b=steady")
    service.wait_running("a#0", "a#1", "b#0")
    for _ in range(2):
        service.reloaded("a=talk:processes=2 b=talk")

    def held() -> tuple[int, ...]:
        service.wait_running("a#0", "a#1", "b#0")
        things = (proc.descriptors, proc.threads, proc.children)
        return *(len(count(service.pid)) for count in things), len(service.loaders)

    wait_until(lambda: held()[2:] == (4, 1), what="three children and a loader")
    before, memory = held(), proc.own_memory(service.pid)
    for _ in range(10):
        service.reloaded("a=talk:processes=2 b=talk")

    def is_as_before() -> bool:
        descriptors, threads, *rest = held()
        # No more than that: of what ended with the reloads before, something may have been there still.
        return descriptors <= before[0] and threads <= before[1] and rest == [4, 1]

    wait_until(is_as_before, what=f"what was there before: {before}")
    wait_until(lambda: not proc.zombies(service.pid), what="no zombies")
    assert proc.own_memory(service.pid) - memory < 2 * 1024 * 1024
    assert service.master.stop() == 0


# Code that does not work changes nothing


def test_code_that_cannot_be_loaded_changes_nothing_and_is_told_why(start: Start) -> None:
    service = start("a=steady b=steady")
    before = service.wait_running("a#0", "b#0")
    for code, told in {
        "broken": "this code is broken",
        "exit": "SystemExit",
        "die": "the loader has ended before it was ready (exit 3)",
        "fork-and-die": "the loader has ended before it was ready (exit 4)",
        "scribble": "what the loader says makes no sense",
        "close-all": "the loader has ended before it was ready (it still runs)",
        "a=nonsense:5": "not enough values to unpack",
    }.items():
        assert told in service.failed(f"a=steady {code}"), code
    assert service.running() == before
    assert len(service.master.lines("child_start")) == 2
    assert service.master.stop() == 0


def test_code_that_hangs_while_it_is_imported_is_given_up(start: Start) -> None:
    service = start("a=steady", "--boot-timeout", "1")
    before = service.wait_running("a#0")
    service.write("hang")
    reply = service.asked(Reload(wait=True)).reply()
    assert reply == Failed("the new code was not imported within 2 s (2 x --boot-timeout)", 1)
    service.wait_old_code("a#0")
    assert service.running() == before
    assert service.master.stop() == 0


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("c=crash", "c#0: exit 70"),
        ("c=misconfigured", "c#0: configuration (exit 78)"),
        ("c=never", "c#0: connecting after 5 s"),
        ("c=talk d=crash", "d#0: exit 70"),
    ],
)
def test_when_one_receiver_does_not_work_with_it_all_go_back_to_the_old_code(
    start: Start, last: str, told: str
) -> None:
    # Not shorter: new code that is good must be imported in twice that.
    service = start("a=steady:processes=2 b=steady c=steady", "--boot-timeout", "5")
    before = service.wait_running("a#0", "a#1", "b#0", "c#0")
    assert service.failed(f"a=talk b=talk:processes=2 {last}") == f"{told}; everything is as before"
    service.wait_old_code("a#0", "a#1", "b#0", "c#0")
    untouched = sorted(slot for pid, slot in service.running().items() if pid in before)
    assert untouched == (["a#1"] if "d=" in last else ["a#1", "c#0"]), "who should leave does so at the end"
    service.reloaded("a=talk b=talk c=talk")
    assert service.master.stop() == 0


# Loaders that die


def test_a_loader_that_is_killed_while_it_imports_is_a_failed_reload(start: Start) -> None:
    service = start("a=steady")
    before = service.wait_running("a#0")
    service.reload("hang")
    loader = int(service.master.wait_line("reload_begin")["pid"])
    os.kill(loader, signal.SIGKILL)
    assert "(SIGKILL)" in service.master.wait_line("reload_failed")["reason"]
    assert service.running() == before
    assert service.master.stop() == 0


def test_a_loader_that_is_killed_between_two_forks_is_a_failed_reload(start: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    service = start("a=steady b=steady", TEST_GO_ON=str(go_on))
    service.wait_running("a#0", "b#0")
    service.reload("a=when-told b=talk")
    service.master.wait_line("child_start", count=2, slot="a#0")
    os.kill(service.wait_loader(), signal.SIGKILL)
    go_on.touch()
    assert "b#0: fork failed" in service.master.wait_line("reload_failed")["reason"]
    service.wait_old_code("a#0", "b#0")
    service.reloaded("a=talk b=talk")
    assert service.master.stop() == 0


def test_the_loader_of_before_may_die_during_a_reload_that_fails(start: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    service = start("a=steady b=steady", TEST_GO_ON=str(go_on))
    service.wait_consuming("a#0", "b#0")
    service.reloaded("a=steady b=steady")
    before = service.wait_loader()
    service.reload("a=when-told b=crash")
    service.master.wait_line("child_start", count=3, slot="a#0")
    os.kill(before, signal.SIGKILL)
    go_on.touch()
    service.master.wait_line("reload_failed")
    service.reloaded("a=talk b=talk")
    service.wait_new_code("a#0", "b#0")
    wait_until(lambda: len(service.loaders) == 1, what="one loader")
    assert service.master.stop() == 0


def test_an_idle_loader_that_is_killed_is_replaced(start: Start) -> None:
    service = start("a=steady")
    service.wait_consuming("a#0")
    service.reloaded("a=steady")
    os.kill(service.wait_loader(), signal.SIGKILL)
    service.master.wait_line("reload_ok", count=2)
    [child] = service.wait_running("a#0")
    os.kill(child, signal.SIGKILL)
    service.master.wait_line("child_exit", pid=child)
    service.wait_running("a#0")
    assert service.master.stop() == 0


def test_a_loader_that_cannot_be_replaced_is_tried_again_with_growing_delays(start: Start) -> None:
    service = start("a=steady", "--backoff", "0.4:30")
    service.wait_consuming("a#0")
    service.reloaded("a=steady")
    [child] = service.wait_running("a#0")
    service.write("broken")
    os.kill(service.wait_loader(), signal.SIGKILL)
    service.master.wait_line("reload_failed", count=3)
    begun = [seconds(line) for line in service.master.lines("reload_begin")[1:]]
    assert begun[2] - begun[0] > (0.4 + 0.8) / 2 - 0.05
    assert service.running() == {child: "a#0"}, "what runs goes on"
    service.reloaded("a=talk")
    assert service.master.stop() == 0


# The end


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(
    ("old", "new", "event"),
    [
        ("a=steady", "hang", ""),
        ("a=steady", "a=never", "child_start"),
        ("a=held", "a=steady", "child_consuming"),
    ],
    ids=["importing", "taking over", "draining"],
)
def test_a_stop_in_any_phase_of_a_reload_is_a_stop(
    start: Start, tmp_path: Path, number: signal.Signals, old: str, new: str, event: str
) -> None:
    go_on = tmp_path / "go-on"
    service = start(f"{old} b=steady", TEST_GO_ON=str(go_on))
    service.wait_consuming("a#0", "b#0")
    service.write(f"{new} b=steady")
    waiter = service.asked(Reload(wait=True))
    if new == "hang":
        service.master.wait_line("reload_begin")
    else:
        service.master.wait_line(event, count=2, slot="a#0")
    is_cut = old == "a=held" and number == signal.SIGQUIT
    service.master.send(number)
    if not is_cut:
        go_on.touch()
    assert service.master.wait() == (80 if is_cut else 0)
    assert waiter.reply() == Failed("the master is stopping", 1)
    assert service.master.lines("reload_ok") == []
    assert "left behind" not in service.master.handle.output()


def test_a_stop_during_a_second_reload_ends_both_loaders_at_once(start: Start) -> None:
    service = start("a=steady")
    service.wait_consuming("a#0")
    service.reloaded("a=talk")
    service.reload("a=never")
    wait_until(lambda: len(service.loaders) == 2, what="two loaders")
    service.master.wait_line("child_start", count=3, slot="a#0")
    assert service.master.stop() == 0
    assert "left behind" not in service.master.handle.output()


@pytest.mark.parametrize("code", ["a=talk b=talk", "hang"])
def test_when_the_master_is_killed_loader_and_children_leave_by_themselves(start: Start, code: str) -> None:
    service = start("a=steady b=steady")
    service.wait_consuming("a#0", "b#0")
    if code == "hang":
        service.reload(code)
        loader = int(service.master.wait_line("reload_begin")["pid"])
        wait_until(lambda: "--control" in proc.title(loader), what="the loader runs Python")
    else:
        service.reloaded(code)
        loader = service.wait_loader()
    children = list(service.wait_running("a#0", "b#0"))
    with proc.adopting():
        service.master.handle.kill()
        service.master.handle.wait()
        endings = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        os.waitpid(loader, 0)
    assert endings == [81, 81]


def seconds(line: Line) -> float:
    from datetime import datetime

    return datetime.fromisoformat(line["time"]).timestamp()
