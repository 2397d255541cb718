"""What becomes of children that end by themselves."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from tests.processes import Processes
from tests.supervising import Line, Supervised
from tests.waiting import wait_until


def test_a_crashing_child_is_started_again_with_growing_delays_and_others_are_not_touched(
    processes: Processes,
) -> None:
    supervised = Supervised(processes, "good=steady bad=crash")
    supervised.wait_line("child_consuming", slot="good#0")
    supervised.wait_line("child_exit", count=4, slot="bad#0")
    exits = supervised.lines("child_exit", slot="bad#0")[:4]
    assert [line["code"] for line in exits] == [70] * 4
    assert [line["n"] for line in exits] == [1, 2, 3, 4]
    assert all(
        low <= line["delay"] <= high
        for line, (low, high) in zip(exits, [(0.025, 0.075), (0.05, 0.15), (0.1, 0.2), (0.2, 0.2)], strict=True)
    )
    assert len({line["pid"] for line in exits}) == 4
    assert len(supervised.lines("child_start", slot="good#0")) == 1
    assert supervised.stop() == 0
    assert "crashed as asked" in supervised.handle.output()


def test_a_child_that_crashes_after_a_stable_run_is_started_again_at_once(processes: Processes) -> None:
    supervised = Supervised(processes, "bad=crash-later", "--stable-after", "0.1", "--backoff", "60:60")
    supervised.wait_line("child_consuming", count=3, slot="bad#0")
    assert [line["delay"] for line in supervised.lines("child_exit")][:2] == [0, 0]
    assert supervised.stop() == 0


def test_only_consuming_counts_towards_a_stable_run(processes: Processes) -> None:
    supervised = Supervised(processes, "away=away-and-crash", "--stable-after", "0.1", "--backoff", "0.05:5")
    supervised.wait_line("child_exit", count=3, slot="away#0")
    assert [line["n"] for line in supervised.lines("child_exit")][:3] == [1, 2, 3]
    assert all(line["delay"] > 0 for line in supervised.lines("child_exit"))
    assert supervised.stop() == 0


def test_a_child_killed_with_sigkill_is_replaced(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady")
    supervised.wait_line("child_consuming", slot="good#0")
    first = supervised.pid_of("good#0")
    os.kill(first, signal.SIGKILL)
    line = supervised.wait_line("child_exit", slot="good#0", pid=first)
    assert (line["signal"], line["receiver"]) == ("SIGKILL", "good")
    assert "in_flight" not in line
    supervised.wait_line("child_consuming", count=2, slot="good#0")
    assert supervised.stop() == 0


def test_without_pidfds_the_signal_of_the_kernel_is_enough(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady bad=exit-three", TEST_LIMIT="pidfd")
    supervised.wait_line("child_exit", count=3, slot="bad#0")
    supervised.wait_line("child_consuming", slot="good#0")
    assert supervised.stop() == 0


def test_the_event_in_the_hand_of_a_dead_child_is_named(processes: Processes) -> None:
    supervised = Supervised(processes, "bad=dies-with-event", "--backoff", "30:30")
    line = supervised.wait_line("child_exit", slot="bad#0")
    assert (line["signal"], line["in_flight"]) == ("SIGKILL", "in-hand-1")
    assert supervised.stop() == 0


def test_a_wrong_configuration_waits_for_the_longest_delay_at_once(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady bad=misconfigured", "--backoff", "0.05:30")
    line = supervised.wait_line("child_exit", slot="bad#0")
    assert (line["code"], line["delay"], line["reason"]) == (78, 30, "configuration (exit 78)")
    supervised.handle.wait_output("the queue has other arguments")  # the last words may be written after the exit
    supervised.wait_line("child_consuming", slot="good#0")
    assert supervised.stop() == 0


def test_a_clean_exit_without_a_request_is_a_crash(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady quiet=give-in three=exit-three")
    assert supervised.wait_line("child_exit", slot="quiet#0")["code"] == 70
    assert supervised.wait_line("child_exit", slot="three#0")["code"] == 3
    first = supervised.pid_of("good#0")
    supervised.wait_line("child_consuming", slot="good#0")
    os.kill(first, signal.SIGTERM)
    assert supervised.wait_line("child_exit", slot="good#0")["code"] == 0
    supervised.wait_line("child_consuming", count=2, slot="good#0")
    assert supervised.stop() == 0


def test_a_child_that_does_not_boot_in_time_is_ended_and_started_again(processes: Processes) -> None:
    supervised = Supervised(processes, "slow=steady", "--boot-timeout", "0.3", "--grace", "1", TEST_BOOT="hang")
    line = supervised.wait_line("child_exit", slot="slow#0")
    assert line["reason"].startswith("not booted within 0.3 s")
    assert line["n"] == 1
    supervised.wait_line("child_start", count=2, slot="slow#0")
    assert "Current thread" in supervised.handle.output(), "the stacks tell where it hung"
    supervised.stop()


def test_a_failing_boot_exits_71_and_says_why(processes: Processes) -> None:
    supervised = Supervised(processes, "slow=steady", TEST_BOOT="fail")
    line = supervised.wait_line("child_exit", slot="slow#0")
    assert (line["code"], line["reason"]) == (71, "did not boot (exit 71)")
    supervised.handle.wait_output("no cup of tea")
    assert supervised.stop() == 0


def test_when_all_receivers_keep_failing_the_master_gives_up_with_75(processes: Processes) -> None:
    supervised = Supervised(processes, "bad=crash worse=misconfigured", "--give-up-after", "0.5")
    assert supervised.wait() == 75
    assert "have failed for 0.5 s" in supervised.lines("stop_begin")[0]["reason"]


@pytest.mark.parametrize("env", [{"TEST_BOOT": "fail"}, {"TEST_LIMIT": "processes"}], ids=["boot", "fork"])
def test_children_that_do_not_even_boot_or_fork_count_as_failing(processes: Processes, env: dict[str, str]) -> None:
    supervised = Supervised(processes, "a=steady b=steady", "--give-up-after", "0.5", **env)
    assert supervised.wait() == 75
    assert supervised.lines("child_consuming") == []


def test_a_fork_that_fails_is_tried_again_with_growing_delays_until_it_works(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady b=steady", "--stable-after", "0", "--backoff", "0.2:5")
    for slot in ("a#0", "b#0"):
        supervised.wait_line("child_consuming", slot=slot)
    soft, hard = resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE, (8, hard))
    os.kill(supervised.pid_of("a#0"), signal.SIGKILL)
    refused = "a#0 cannot be forked: Too many open files"
    wait_until(lambda: len(failures(supervised, refused)) >= 4, what="four tries")
    times = [_seconds(line["time"]) for line in failures(supervised, refused)]
    assert times[3] - times[0] > (0.2 + 0.4 + 0.8) / 2 - 0.05
    resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE, (soft, hard))
    supervised.wait_line("child_consuming", count=2, slot="a#0")
    assert len(supervised.lines("child_start", slot="b#0")) == 1, "the others are not touched"
    assert supervised.stop() == 0


def failures(supervised: Supervised, message: str) -> list[Line]:
    return [line for line in supervised.log() if line["message"] == message]


def test_one_working_receiver_is_enough_to_go_on(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady bad=crash", "--give-up-after", "0.2")
    supervised.wait_line("child_exit", count=6, slot="bad#0")
    assert supervised.handle.returncode is None
    assert supervised.stop() == 0


def test_an_outage_of_the_broker_is_no_failure(processes: Processes) -> None:
    supervised = Supervised(processes, "away=waiting bad=crash", "--give-up-after", "0.2")
    supervised.wait_line("child_exit", count=6, slot="bad#0")
    assert supervised.lines("child_exit", slot="away#0") == []
    assert supervised.stop() == 0


def test_forks_keep_to_the_spawn_rate(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady b=steady c=steady d=steady", "--spawn-rate", "4", "--processes", "a=7")
    line = supervised.wait_line("child_start", count=10)
    assert supervised.stop() == 0
    first = supervised.lines("child_start")[0]
    # Four at once, then one each quarter of a second, together 1.5 s. The times of the log are of the wall clock, and
    # of the end of a fork, which may take its time: with a margin.
    assert _seconds(line["time"]) - _seconds(first["time"]) > 0.9


def test_restarts_keep_to_the_spawn_rate_however_many_crash_at_once(processes: Processes) -> None:
    receivers = " ".join(f"r{number}=exit-three" for number in range(10))
    supervised = Supervised(processes, receivers, "--spawn-rate", "10", "--backoff", "0.01:0.01")
    supervised.wait_line("child_start", count=25)
    assert supervised.stop() == 0
    times = [_seconds(line["time"]) for line in supervised.lines("child_start")]
    # Ten at once, then ten a second. The times of the log are of the wall clock, and of the end of a fork: with a
    # margin.
    assert all(at - times[0] > (number - 10) / 10 - 0.5 for number, at in enumerate(times))


def test_processes_of_one_receiver_are_slots_of_their_own(processes: Processes) -> None:
    supervised = Supervised(processes, "a=dice", "--processes", "a=2")
    supervised.wait_line("child_consuming", slot="a#0")
    supervised.wait_line("child_consuming", slot="a#1")
    dice = wait_until(lambda: [line["dice"] for line in supervised.log() if "dice" in line])
    assert len(set(dice)) == 2, "each child has random numbers of its own"
    assert supervised.stop() == 0


def _seconds(time: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(time).timestamp()
