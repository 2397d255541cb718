"""An event whose handler takes the process with it is set aside with the cause; all others are handled."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.service import Service
from tests.acceptance.trouble import DEADLINE, Trouble
from tests.processes import Processes
from tests.waiting import wait_until


@pytest.fixture
def trouble(service: Service, processes: Processes) -> Trouble:
    return Trouble(service, processes)


def killer(n: int, of: object = "SIGKILL", **data: object) -> dict[str, object]:
    return {"n": n, "do": "die", "of": of, **data}


def plain(*numbers: int) -> list[dict[str, object]]:
    return [{"n": n} for n in numbers]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_the_event_is_dead_lettered_with_the_cause_and_its_neighbours_are_handled(
    trouble: Trouble, queue_type: str
) -> None:
    causes = {
        "signal": ("SIGABRT", "SIGABRT"),
        "killed": ("SIGKILL", "SIGKILL"),
        "exit": (3, "exit 3"),
        "segfault": ("a read of address 0", "SIGSEGV"),
    }
    master = trouble.start(**{name: {"queue_type": queue_type, "prefetch": 16} for name in causes})
    for name, (of, _) in causes.items():
        # In the middle, so that some are before it and many are prefetched behind it.
        trouble.send_many(name, *plain(*range(5)), killer(5, of), *plain(*range(6, 40)))
    for name in causes:
        trouble.wait_handled({*range(40)} - {5}, name)
        trouble.wait_dead(1, name)
    assert master.stop() == 0
    for name, (_, cause) in causes.items():
        [letter] = trouble.take_dead(name)
        assert (letter.n, letter.reason) == (5, f"consumer died 2x ({cause})")
        assert letter.headers["domain-events-error-type"] == "ConsumerDied"
        assert trouble.begun(name)[5] == 2
        trouble.check_ledger([letter], name)
        if name in ("segfault", "signal"):
            [fault] = {"Fatal Python error: Segmentation fault", "Fatal Python error: Aborted"} & {
                line.strip() for line in letter.traceback.splitlines()
            }
            assert "in die" in letter.traceback
            assert any("in die" in text for text in master.messages("stacks of", f"{name}#0", fault))
        else:
            assert letter.traceback == ""


def test_several_of_them_in_a_row_cost_two_deaths_each(trouble: Trouble) -> None:
    master = trouble.start(work={"prefetch": 16})
    open_before = master.open_files()
    trouble.send_many("work", *(killer(n, 3) for n in range(4)), *plain(*range(4, 30)))
    trouble.wait_handled(range(4, 30))
    trouble.wait_dead(4)
    # The last one's log may still be read.
    wait_until(lambda: master.open_files() <= open_before, DEADLINE, "nothing is left of eight children")
    assert master.stop() == 0
    letters = trouble.take_dead()
    assert {letter.n for letter in letters} == set(range(4))
    assert {letter.reason for letter in letters} == {"consumer died 2x (exit 3)"}
    assert [trouble.begun()[n] for n in range(4)] == [2] * 4
    assert len(letters) == 4, "each once"
    trouble.check_ledger(letters)


def test_a_process_that_a_dead_child_has_left_behind_costs_its_master_a_descriptor_only_while_it_lives(
    trouble: Trouble,
) -> None:
    """It has the log of the dead one open, whose other end the master reads."""
    master = trouble.start(work={})
    before = master.open_files()
    trouble.send("work", 1, do="leave a process behind")
    trouble.wait_handled([1])
    [child] = master.lines("child_consuming")
    os.kill(child["pid"], signal.SIGKILL)
    master.wait_lines("child_consuming", 2)
    assert master.open_files() > before
    trouble.go_on()
    wait_until(lambda: master.open_files() == before, DEADLINE, "nothing is left of it")
    assert master.stop() == 0


def test_it_kills_one_process_then_the_other_and_is_set_aside(trouble: Trouble) -> None:
    master = trouble.start(work={"processes": 2, "prefetch": 16})
    trouble.send_many("work", *plain(*range(10)), killer(10, "SIGSEGV"), *plain(*range(11, 60)))
    trouble.wait_handled({*range(60)} - {10})
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    # A third one, should the broker be faster with it than the kernel is with the news of the second death.
    deaths = trouble.begun()[10]
    assert 2 <= deaths <= 3
    assert (letter.n, letter.reason) == (10, f"consumer died {deaths}x (SIGSEGV)")
    assert len({note["pid"] for note in trouble.notes("work", "begin") if note["n"] == 10}) == deaths
    trouble.check_ledger([letter])


@pytest.mark.parametrize("options", [{"threads": 4}, {"concurrency": 4}], ids=["threads", "coroutines"])
def test_an_innocent_event_that_is_in_hand_at_a_death_is_handled(trouble: Trouble, options: dict[str, object]) -> None:
    master = trouble.start(work=options)
    innocent = [{"n": n, "do": "sleep", "seconds": 0.5} for n in range(3)]
    # It waits for the others to be in hand, twice if it can: they are there when the process dies.
    trouble.send_many("work", *innocent, killer(3, "SIGSEGV", **{"with": [0, 1, 2]}), *plain(*range(4, 30)))
    trouble.wait_handled({*range(30)} - {3})
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert (letter.n, letter.reason) == (3, "consumer died 2x (SIGSEGV)")
    assert trouble.begun()[3] == 2
    trouble.check_ledger([letter])


@pytest.mark.parametrize("options", [{"threads": 24}, {"concurrency": 24}], ids=["threads", "coroutines"])
def test_it_is_found_among_many_that_are_in_hand(trouble: Trouble, options: dict[str, object]) -> None:
    master = trouble.start(work=options)
    innocent = [{"n": n, "do": "linger"} for n in range(1, 24)]
    trouble.send_many("work", killer(0, 3, **{"with": list(range(1, 24))}), *innocent, *plain(*range(24, 60)))
    trouble.wait_handled(range(1, 60))
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert (letter.n, letter.reason) == (0, "consumer died 2x (exit 3)")
    assert trouble.begun()[0] == 2
    trouble.check_ledger([letter])


def test_a_receiver_without_dead_letters_drops_it_and_says_which(trouble: Trouble) -> None:
    master = trouble.start(work={"dead_letter": False})
    event = trouble.send("work", 0, do="die", of="SIGKILL")
    trouble.send("work", 1)
    trouble.wait_handled([1])
    assert master.stop() == 0
    assert trouble.begun()[0] == 2
    [line] = [line for line in master.log() if line["level"] == "ERROR" and event.uuid_string in line["message"]]
    assert f"drops event {event.uuid_string} ({event.routing_key})" in line["message"]
    assert "consumer died 2x (SIGKILL)" in line["message"]
    trouble.check_ledger(dropped=[0])


def test_the_limit_can_be_one_death(trouble: Trouble) -> None:
    master = trouble.start("--max-event-crashes", "1", work={})
    trouble.send_many("work", killer(0, 3), *plain(1, 2))
    trouble.wait_handled([1, 2])
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert letter.reason == "consumer died 1x (exit 3)"
    assert trouble.begun()[0] == 1
    trouble.check_ledger([letter])


def test_without_a_limit_it_is_tried_for_ever(trouble: Trouble) -> None:
    master = trouble.start("--max-event-crashes", "0", work={"queue_type": "classic"})
    trouble.send("work", 0, do="die", of=3)
    trouble.wait_begun(0, times=5)
    assert master.stop() in (0, 80)  # 80: it died with the event in hand after it was told to leave
    assert trouble.take_dead() == []
    trouble.check_ledger()


def test_no_end_that_the_master_has_ordered_counts(trouble: Trouble) -> None:
    """With a limit of one death: each of them would be enough."""
    long = {"n": 0, "do": "sleep", "seconds": 600}
    flags = ("--max-event-crashes", "1", "--grace", "1", "--kill-after", "60")
    master = trouble.start(*flags, work={})
    trouble.send_many("work", long, *plain(1))
    # A reload, whose drain takes too long: QUIT.
    trouble.wait_begun(0)
    master.handle.send(signal.SIGHUP)
    trouble.wait_begun(0, times=2)
    [cut] = master.wait_lines("child_exit")
    assert cut["code"] == 80
    # SIGQUIT for the master.
    assert master.stop(signal.SIGQUIT) == 80
    # A second SIGINT.
    master = trouble.start(*flags, work={})
    trouble.wait_begun(0, times=3)
    master.handle.send(signal.SIGINT)
    master.wait_lines("stop_begin")
    assert master.stop(signal.SIGINT) == 80
    # SIGTERM, and the grace is over.
    master = trouble.start(*flags, work={})
    trouble.wait_begun(0, times=4)
    assert master.stop() == 80
    trouble.check_ledger()
    assert trouble.take_dead() == []


def test_no_exit_code_that_means_something_else_hides_a_death(trouble: Trouble) -> None:
    """Those of a recycled and of a misconfigured child."""
    master = trouble.start("--backoff", "0.05:30", work={})
    codes = {0: 75, 1: 78}
    trouble.send_many("work", *(killer(n, code) for n, code in codes.items()), *plain(2))
    trouble.wait_handled([2])
    trouble.wait_dead(2)
    assert master.stop() == 0
    letters = trouble.take_dead()
    assert {letter.n: letter.reason for letter in letters} == {
        n: f"consumer died 2x (exit {code})" for n, code in codes.items()
    }
    deaths = master.lines("child_exit")[:4]
    assert [line["n"] for line in deaths] == [1, 2, 3, 4]
    assert {line["level"] for line in deaths} == {"WARNING"}
    trouble.check_ledger(letters)


def test_an_event_that_was_sent_twice_does_not_kill_for_ever(trouble: Trouble) -> None:
    """Both have the same id, and so the same suspicion."""
    master = trouble.start(work={"queue_type": "classic"})
    first = trouble.send("work", 0, do="die", of=3)
    trouble.send("work", 0, first.uuid_string, do="die", of=3)
    trouble.send("work", 1)
    trouble.wait_handled([1])
    trouble.wait_dead(2)
    assert master.stop() == 0
    letters = trouble.take_dead()
    assert {letter.reason for letter in letters} == {"consumer died 2x (exit 3)"}
    assert trouble.begun()[0] == 4
    trouble.check_ledger(letters)


def test_stacks_that_an_operator_has_asked_for_are_not_taken_for_those_of_the_death(trouble: Trouble) -> None:
    master = trouble.start("--max-event-crashes", "1", work={})
    trouble.send("work", 0, do="wait")
    trouble.wait_begun(0)
    master.handle.send(signal.SIGUSR2)
    wait_until(lambda: master.messages("stacks of", "in act"), DEADLINE, "the stacks in the log")
    trouble.go_on()
    trouble.send("work", 1, do="die", of="SIGKILL")
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert (letter.reason, letter.traceback) == ("consumer died 1x (SIGKILL)", "")
    trouble.check_ledger([letter])


def test_a_dead_letter_that_is_replayed_is_tried_again(trouble: Trouble) -> None:
    master = trouble.start(work={})
    trouble.send("work", 0, do="die", of=3)
    trouble.wait_dead(1)
    [letter] = trouble.take_dead()
    trouble.replay(letter)
    trouble.wait_dead(1)
    assert master.stop() == 0
    [letter] = trouble.take_dead()
    assert letter.reason == "consumer died 2x (exit 3)"
    assert trouble.begun()[0] == 4
    trouble.check_ledger([letter])
