"""How a supervisor ends: drains, force, deadlines, orphans."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import proc
from tests.processes import Processes
from tests.supervising import Supervised


def test_sigterm_finishes_the_event_in_hand_and_exits_0(processes: Processes) -> None:
    supervised = Supervised(processes, "a=busy b=steady")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.wait_line("child_consuming", slot="b#0")
    assert supervised.stop(signal.SIGTERM) == 0, "and does not wait for the grace, see QUICK"
    assert supervised.lines("stop_begin")[0]["signal"] == "SIGTERM"
    assert {line["code"] for line in supervised.lines("child_exit")} == {0}
    assert supervised.lines("drain_end")[0]["code"] == 0


def test_sigterm_again_changes_nothing_and_neither_does_one_sigint(processes: Processes, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    supervised = Supervised(processes, "a=held", TEST_GO_ON=str(go_on))
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.send(signal.SIGTERM)
    supervised.wait_line("stop_begin")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        supervised.send(number)
    go_on.touch()
    assert supervised.wait() == 0
    assert len(supervised.lines("stop_begin")) == 1


def test_the_first_sigint_drains_and_the_second_cuts(processes: Processes) -> None:
    supervised = Supervised(processes, "a=endless")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.send(signal.SIGINT)
    supervised.wait_line("stop_begin", signal="SIGINT")
    assert supervised.stop(signal.SIGINT) == 80, "long before the grace, see QUICK"
    line = supervised.lines("child_exit")[0]
    assert (line["code"], line["in_flight"]) == (80, "in-hand-1")


def test_sigquit_with_idle_children_is_a_clean_end(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady b=waiting")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.wait_line("child_start", slot="b#0")
    assert supervised.stop(signal.SIGQUIT) == 0


def test_at_the_grace_the_stacks_are_dumped_and_the_child_is_told_to_leave(processes: Processes) -> None:
    # The grace is what b has to leave in, on a machine however slow.
    supervised = Supervised(processes, "a=endless b=steady", "--grace", "3")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.wait_line("child_consuming", slot="b#0")
    assert supervised.stop() == 80
    output = supervised.handle.output()
    assert "in endless" in output, "the dump shows where the handler was"
    assert supervised.lines("child_exit", slot="a#0")[0]["code"] == 80
    assert supervised.lines("child_exit", slot="b#0")[0]["code"] == 0
    assert supervised.lines("drain_end")[0]["reason"] == "cut: a#0"


def test_a_child_that_hears_nothing_is_killed_after_kill_after(processes: Processes) -> None:
    supervised = Supervised(processes, "a=deaf", "--grace", "0.3", "--kill-after", "0.5")
    supervised.wait_line("child_consuming", slot="a#0")
    began = time.monotonic()
    assert supervised.stop() == 80
    assert time.monotonic() - began >= 0.8
    line = supervised.lines("child_exit")[0]
    assert (line["signal"], line["in_flight"]) == ("SIGKILL", "in-hand-1")


def test_a_stopped_child_is_woken_up_to_drain(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady")
    supervised.wait_line("child_consuming", slot="a#0")
    os.kill(supervised.pid_of("a#0"), signal.SIGSTOP)
    assert supervised.stop() == 0


def test_a_stop_while_children_boot_waits_for_them(processes: Processes, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    supervised = Supervised(processes, "a=steady b=steady", TEST_BOOT="held", TEST_GO_ON=str(go_on))
    supervised.wait_line("child_start", slot="a#0")
    supervised.send(signal.SIGTERM)
    supervised.wait_line("stop_begin")
    go_on.touch()
    assert supervised.wait() == 0
    assert supervised.lines("child_consuming") == []


def test_a_stop_in_the_middle_of_the_forks_leaves_nobody(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady", "--processes", "a=40", "--spawn-rate", "2")
    supervised.wait_line("child_start", count=3)
    assert supervised.stop() == 0
    assert len(supervised.lines("child_start")) == len(supervised.lines("child_exit")) < 40


def test_a_stop_while_the_broker_is_away_is_immediate(processes: Processes) -> None:
    # Whoever waited for the next try of the one, or for the other, would not be through in time.
    supervised = Supervised(processes, "a=waiting bad=misconfigured", "--backoff", "0.05:600")
    supervised.wait_line("child_start", slot="a#0")
    supervised.wait_line("child_exit", slot="bad#0")
    assert supervised.stop() == 0


def test_when_the_master_is_killed_its_children_finish_and_leave(processes: Processes) -> None:
    supervised = Supervised(processes, "a=busy b=steady c=waiting")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.wait_line("child_consuming", slot="b#0")
    supervised.wait_line("child_start", slot="c#0")
    children = supervised.handle.children()
    assert len(children) == 3
    with proc.adopting():
        supervised.handle.kill()
        supervised.handle.wait()
        endings = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert endings == [81, 81, 81]
    assert supervised.handle.output().count("has lost its master") == 3


def test_an_orphan_that_does_not_finish_cuts_itself(processes: Processes) -> None:
    supervised = Supervised(processes, "a=endless", "--grace", "0.5", "--kill-after", "0.2")
    supervised.wait_line("child_consuming", slot="a#0")
    [child] = supervised.handle.children()
    with proc.adopting():
        supervised.handle.kill()
        supervised.handle.wait()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 80
    assert "an orphan waits no longer" in supervised.handle.output()


def test_an_error_of_the_master_drains_its_children_and_exits_70(processes: Processes) -> None:
    supervised = Supervised(processes, "a=busy b=deaf", "--grace", "3", "--kill-after", "1", TEST_ERROR="1")
    assert supervised.wait() == 70
    assert "a mistake in the loop" in supervised.handle.output()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD])
def test_other_signals_end_nothing(processes: Processes, number: int) -> None:
    supervised = Supervised(processes, "a=steady")
    supervised.wait_line("child_consuming", slot="a#0")
    os.kill(supervised.pid_of("a#0"), signal.SIGINT)
    os.kill(supervised.pid_of("a#0"), signal.SIGHUP)
    supervised.send(number)  # last: a SIGHUP is a reload, which must not get as far as another child
    assert supervised.stop() == 0
    assert len(supervised.lines("child_start")) == 1


def test_sigusr2_writes_the_stacks_of_master_and_children(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.send(signal.SIGUSR2)
    supervised.handle.wait_output("in _supervise")
    supervised.handle.wait_output("in steady")
    assert supervised.stop() == 0
