"""A handler that takes too long, or a process that gives no sign of life, is shown, ended and replaced."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.acceptance.service import Service, running
from tests.acceptance.trouble import Master, Trouble
from tests.processes import Processes


@pytest.fixture
def trouble(service: Service, processes: Processes) -> Trouble:
    return Trouble(service, processes)


def plain(*numbers: int) -> list[dict[str, object]]:
    return [{"n": n} for n in numbers]


def position(master: Master, *words: str) -> int:
    """Of the first log line with all these words."""
    return next(n for n, line in enumerate(master.log()) if all(word in line["message"] for word in words))


HANGING: dict[str, dict[str, object]] = {
    "python": {"do": "sleep", "seconds": 600},
    "gil": {"do": "hold the GIL"},
    "blocked": {"do": "block signals"},
    "ignored": {"do": "ignore signals"},
}


def test_a_handler_that_takes_too_long_is_ended_with_its_stacks_in_the_log_and_in_the_dead_letter(
    trouble: Trouble,
) -> None:
    """Whatever it hangs in. The others of its queue are handled, and so are all other receivers' events."""
    # Those that can leave by themselves have the time to do so.
    master = trouble.start(
        "--kill-after", "5", other={}, **{name: {"timeout": 2.0, "prefetch": 16} for name in HANGING}
    )
    for name, how in HANGING.items():
        trouble.send_many(name, *plain(*range(5)), {"n": 5, **how}, *plain(*range(6, 30)))
    trouble.send_many("other", *plain(*range(30)))
    trouble.wait_handled(range(30), "other")
    for name in HANGING:
        trouble.wait_handled({*range(30)} - {5}, name)
        trouble.wait_dead(1, name)
    assert master.stop() == 0
    for name in HANGING:
        [letter] = trouble.take_dead(name)
        assert (letter.n, letter.reason) == (5, "consumer died 2x (timeout 2.0s)")
        assert letter.headers["domain-events-error-type"] == "ConsumerDied"
        assert trouble.begun(name)[5] == 2
        trouble.check_ledger([letter], name)
        # The stacks of all threads: of the handler, and of the one that talks to the broker.
        assert "in act" in letter.traceback
        assert letter.traceback.count("hread 0x") >= 3
        assert "io_thread.py" in letter.traceback
        # In the log, and in this order, for each of its two processes.
        slot = f"{trouble.prefix}{name}#0"
        hung = master.lines("child_hung", slot=slot)
        exits = master.lines("child_exit", slot=slot)[:2]
        assert [line["reason"] for line in hung] == ["timeout 2.0s"] * 2
        for at, (cause, end) in enumerate(zip(hung, exits, strict=True)):
            pid = cause["pid"]
            assert end["pid"] == pid
            assert end["in_flight"] == cause["in_flight"] == letter.message[1].message_id
            end_of_it = "SIGKILL" if name in ("gil", "ignored") else "exit 80"
            assert end["reason"] == f"timeout 2.0s ({end_of_it})"
            stacks = position(master, f"stacks of {slot} (pid {pid})", "in act", "io_thread.py")
            assert position(master, "child_hung", f"pid={pid}") < stacks < position(master, "child_exit", f"pid={pid}")
            assert master.lines("child_start", slot=slot)[at + 1]["n"] == at + 1, "restarts count it"


def test_a_coroutine_is_cancelled_and_only_a_loop_that_does_not_react_is_ended(trouble: Trouble) -> None:
    master = trouble.start(**{name: {"timeout": 0.5, "concurrency": 4} for name in ("patient", "deaf")})
    trouble.send_many("patient", {"n": 0, "do": "sleep", "seconds": 600}, *plain(1, 2, 3))
    trouble.send_many("deaf", {"n": 0, "do": "hold the GIL"}, *plain(1, 2, 3))
    for name, kind in (("patient", "TimeoutError"), ("deaf", "ConsumerDied")):
        trouble.wait_handled([1, 2, 3], name)
        trouble.wait_dead(1, name)
        [letter] = trouble.take_dead(name)
        assert (letter.n, letter.headers["domain-events-error-type"]) == (0, kind)
    assert letter.reason == "consumer died 2x (timeout 0.5s)"
    assert {line["receiver"] for line in master.lines("child_exit")} == {f"{trouble.prefix}deaf"}
    # The log has the traceback of the TimeoutError.
    assert master.stop(tracebacks=1) == 0
    for name in ("patient", "deaf"):
        trouble.check_ledger([letter], name)


def test_with_threads_only_the_slow_event_is_to_blame_and_the_others_are_finished(trouble: Trouble) -> None:
    # Ten times what each of the others takes, and then the same again to finish it.
    master = trouble.start("--kill-after", "6", work={"timeout": 3.0, "threads": 4})
    trouble.send("work", 0, do="sleep", seconds=600)
    trouble.wait_begun(0)
    # Some of them are in hand when the time of the first is over, and done soon after.
    trouble.send_many("work", *({"n": n, "do": "sleep", "seconds": 0.3} for n in range(1, 46)))
    trouble.wait_handled(range(1, 46))
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert (letter.n, letter.reason) == (0, "consumer died 2x (timeout 3.0s)")
    assert trouble.begun()[0] == 2
    assert set(trouble.handled().values()) == {1}, "nothing is cut"
    trouble.check_ledger([letter])


@pytest.mark.parametrize("in_hand", [True, False], ids=["in a handler", "idle"])
def test_a_child_that_is_stopped_gives_no_sign_of_life_and_is_replaced(trouble: Trouble, in_hand: bool) -> None:
    master = trouble.start("--hang-timeout", "1.5", "--kill-after", "30", work={})
    if in_hand:
        trouble.send("work", 0, do="wait")
        trouble.wait_begun(0)
    [pid] = master.pids()
    os.kill(pid, signal.SIGSTOP)
    [hung] = master.wait_lines("child_hung", pid=pid)
    assert hung["reason"] == "no sign of life for 1.5s"
    # It is stopped: only SIGCONT lets it hear what it is told.
    [end] = master.wait_lines("child_exit", pid=pid)
    assert end["code"] == (80 if in_hand else 0)
    assert end["reason"] == f"no sign of life for 1.5s (exit {end['code']})"
    trouble.go_on()
    trouble.send("work", 1)
    trouble.wait_handled([0, 1] if in_hand else [1])
    assert master.messages("stacks of", f"(pid {pid})")
    assert master.stop() == 0
    trouble.check_ledger()


def test_a_handler_that_never_gives_the_interpreter_back_is_no_sign_of_life(trouble: Trouble) -> None:
    master = trouble.start("--hang-timeout", "1.5", work={}, system={})
    trouble.send_many("work", {"n": 0, "do": "hold the GIL"}, *plain(1, 2))
    trouble.send_many("system", {"n": 0, "do": "hold the GIL in a system call"}, *plain(1, 2))
    for name in ("work", "system"):
        trouble.wait_handled([1, 2], name)
        trouble.wait_dead(1, name)
    assert master.stop() == 0
    for name in ("work", "system"):
        [letter] = trouble.take_dead(name)
        assert (letter.n, letter.reason) == (0, "consumer died 2x (no sign of life for 1.5s)")
        assert "in act" in letter.traceback
        trouble.check_ledger([letter], name)


def test_a_slow_handler_is_no_reason_while_the_process_gives_signs_of_life(trouble: Trouble) -> None:
    master = trouble.start("--hang-timeout", "2", work={})
    trouble.send("work", 0, do="sleep", seconds=4.5)
    trouble.wait_handled([0])
    assert master.lines("child_hung") == []
    assert master.stop() == 0
    trouble.check_ledger()


@pytest.mark.parametrize("children", [True, False], ids=["the whole group", "the master alone"])
def test_who_was_stopped_itself_blames_nobody(trouble: Trouble, children: bool) -> None:
    """For longer than each limit, and in different moments of the limit."""
    master = trouble.start("--hang-timeout", "1.5", work={"timeout": 1.5}, other={"timeout": 1.5})
    pids = master.pids()
    for n, length in enumerate((1.8, 2.3)):
        trouble.send("work", n, do="work", seconds=0.4)
        trouble.wait_begun(n)
        master.freeze(children=children)
        time.sleep(length)  # that is what is tested
        master.thaw()
        trouble.wait_handled([n])
    trouble.send("other", 0)
    trouble.wait_handled([0], "other")
    assert master.lines("child_hung") == []
    assert master.pids() == pids
    assert master.stop() == 0
    assert set(trouble.handled().values()) == {1}
    trouble.check_ledger()


def test_who_was_stopped_while_it_drains_gives_the_rest_of_the_grace(trouble: Trouble) -> None:
    master = trouble.start("--grace", "4", work={})
    trouble.send("work", 0, do="wait")
    trouble.wait_begun(0)
    master.handle.terminate()
    master.wait_lines("stop_begin")
    master.freeze(children=True)
    time.sleep(5.0)  # longer than the grace
    trouble.go_on()
    master.thaw()
    assert master.handle.wait() == 0
    assert trouble.handled() == {0: 1}
    trouble.check_ledger()


def test_when_memory_is_short_the_kernel_takes_a_child_and_not_the_master(trouble: Trouble) -> None:
    master = trouble.start(work={"processes": 2}, other={})

    def score(pid: int) -> int:
        with open(f"/proc/{pid}/oom_score_adj") as file:
            return int(file.read())

    assert len(master.pids()) == 3
    assert all(score(pid) > score(master.pid) for pid in master.pids())
    assert sorted(running(master.pids())) == sorted(master.handle.children())
    assert master.stop() == 0
