"""The ledger of the soak sees what is missing, what is too much, and what took too long."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.soak.books import Clock, append, read
from benchmarks.soak.faults import Fault, Lane, Strike
from benchmarks.soak.logs import search
from benchmarks.soak.nodes import NodeError
from benchmarks.soak.plan import FAST, TOPICS, kinds
from benchmarks.soak.reckoning import Account, gaps, read_notes, read_sent, reckon

JOURNAL = """1.0 about a work 10
1.0 about b work 10
1.0 about c work 10
1.0 about d slow 10
1.1 confirmed a -
1.2 not-sent b ConnectionFailed
11.0 unknown c SendTimeout
1.3 confirmed d -"""


def account(
    handled: Sequence[str] = (), dead: Sequence[str] = (), left: Sequence[str] = (), journal: str = JOURNAL
) -> Account:
    """Of a receiver that listens to `work`."""
    sent = read_sent(("sent.x", line.split(" ")) for line in journal.splitlines())
    notes = read_notes(("handled.r", [at, name, "soak.work"]) for at, name in zip("56789", handled, strict=False))
    return reckon("r", ["work"], sent, notes.get("r", []), dead, left)


def names(found: Account) -> list[str]:
    return [each.name for each in found.lost]


def test_a_confirmed_event_that_is_nowhere_is_lost() -> None:
    assert names(account()) == ["a"]
    assert account().expected == 1, "d is for others"


@pytest.mark.parametrize("place", ["handled", "dead", "left"])
def test_it_is_not_lost_wherever_it_is(place: str) -> None:
    assert names(account(**{place: ["a"]})) == []


def test_of_an_unknown_event_it_is_told_whether_it_has_arrived() -> None:
    assert (account().unknown, account().unknown_arrived) == (1, [])
    assert account(["c"]).unknown_arrived == ["c"]


def test_an_event_whose_sender_was_killed_is_unknown() -> None:
    killed = account(journal="1.0 about a work 10")
    assert (killed.unknown, names(killed)) == (1, [])


def test_an_event_that_was_not_sent_must_not_arrive() -> None:
    assert account(["a"]).ghosts == []
    assert account(["a", "b"]).ghosts == ["b"]


def test_what_nobody_has_sent_to_this_receiver_is_a_stranger() -> None:
    assert account(["a"], dead=["z"], left=["d"]).strangers == ["d", "z"]


def test_duplicates_are_counted_apart() -> None:
    found = account(["a", "a", "c"], dead=["a"])
    assert (found.handled, found.duplicates, found.dead, found.dead_again) == (2, 1, 1, 1)


def test_gaps_are_measured_from_the_begin_to_the_end() -> None:
    assert [(gap.seconds, gap.began) for gap in gaps([3.0, 4.0], 1.0, 9.0)] == [(5.0, 4.0), (2.0, 1.0), (1.0, 3.0)]


def test_what_is_appended_is_read_as_words(tmp_path: Path) -> None:
    append(tmp_path / "sent.x", "1.0 about a work 10\n1.0 about b work 10")
    append(tmp_path / "sent.x", "1.1 confirmed a -")
    assert [words[1] for _, words in read(tmp_path, "sent.*")] == ["about", "about", "confirmed"]


def test_every_topic_has_a_receiver_and_the_fast_one_has_all() -> None:
    [fast] = [kind for kind in kinds(3) if kind.name == FAST]
    assert set(fast.topics) == set(TOPICS)
    assert fast.binding_keys == ["soak.#"]
    assert {topic for kind in kinds(3) if kind is not fast for topic in kind.topics} == set(TOPICS)
    assert [kind.name for kind in kinds(1) if kind.classic] == ["classic"]


def test_the_same_seed_brings_the_same_faults_in_the_same_order() -> None:
    def drawn(seed: int) -> list[str]:
        enough, stop = threading.Event(), threading.Event()
        fault: Fault = lambda strike: strike.name(f"{strike.dice.random()}")  # noqa: E731
        lane = Lane(
            "nodes",
            {"killed": (1, fault), "paused": (3, fault)},
            seed=seed,
            pause=0.001,
            clock=Clock(0.0),
            stop=stop,
            say=lambda _: enough.set() if len(lane.happened) == 20 else None,
        )
        lane.start()
        assert enough.wait(20)
        stop.set()
        lane.join(20)
        return [f"{each.kind} {each.what}" for each in lane.happened[:20]]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_fault_that_fails_ends_the_lane_and_is_told() -> None:
    def fail(strike: Strike) -> None:
        strike.name("node 2")
        raise NodeError("it does not start")

    lane = Lane(
        "nodes", {"killed": (1, fail)}, seed=1, pause=0.001, clock=Clock(0.0), stop=threading.Event(), say=str.title
    )
    lane.start()
    lane.join(20)
    assert lane.problem is not None
    assert "killed node 2: it does not start" in lane.problem


def test_tracebacks_of_ours_are_found_and_those_of_handlers_are_not() -> None:
    line = '{"level": "ERROR", "logger": "domain_events.%s", "message": "event b.1.0-7 failed 3 times", %s}'
    handlers = line % ("settling", '"exception": "Traceback"')
    found = search([handlers, handlers.replace("0-7", "0-8"), line % ("running", '"exception": "Traceback ours"')])
    assert found.errors["domain_events.settling: event ID failed N times"] == 2
    assert len(found.tracebacks) == 1
    assert "Traceback ours" in found.tracebacks[0]


def test_a_traceback_past_the_log_is_found() -> None:
    [text] = search(["Traceback (most recent call last):", '  File "x"', "ValueError: no"]).tracebacks
    assert text.endswith("ValueError: no")
