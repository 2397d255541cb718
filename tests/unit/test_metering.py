"""The numbers of a supervisor, without a process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from domain_events.supervisor.causes import USUAL
from domain_events.supervisor.crew import Crew, Past
from domain_events.supervisor.metering import MasterMetrics, MetricsReport, metrics_report
from domain_events.supervisor.notes import InHand, Record
from domain_events.supervisor.posts import Post
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.slots import Slot, State
from domain_events.supervisor.tallies import Counters, Histogram

MASTER: MasterMetrics = {"version": "1.2.3", "state": "running", "started_at": 1e9, "rss": 5}
ONE_QUICK = Histogram(counts=(1, *[0] * 16), sum=0.0005)


@dataclass
class FakeRecord:
    counters: Counters = field(default_factory=Counters)
    in_hand: list[InHand] = field(default_factory=list)
    last_beat: float | None = None


@dataclass
class FakeSeat:
    slot: Slot
    record: FakeRecord = field(default_factory=FakeRecord)
    counters: Counters = field(default_factory=Counters)
    started_at: float | None = None
    in_flight: str | None = None
    rss: int | None = None
    is_leaving: bool = False
    is_candidate: bool = False


def report(*seats: Any, receivers: list[str], past: dict[str, Past] | None = None) -> MetricsReport:
    return metrics_report(
        seats,
        past=past or {},
        receivers=receivers,
        master=MASTER,
        log_records_dropped={"master": 0},
        now=100.0,
        time=2_000_000_000.0,
    )


def test_a_receiver_at_work() -> None:
    seat = FakeSeat(
        Slot(receiver="printer", index=0, state=State.CONSUMING, pid=7),
        record=FakeRecord(
            counters=Counters(
                handled=10, retried=2, failed={"ValueError": 3}, sent=4, seconds=ONE_QUICK, lateness=ONE_QUICK
            ),
            in_hand=[InHand(id="a", since=98.0), InHand(id="b", since=99.5)],
            last_beat=99.0,
        ),
        counters=Counters(handled=1_000),  # with those of the seat before: not to be counted twice
        started_at=40.0,
        rss=1048576,
    )
    past = {"printer": Past(counters=Counters(handled=5, dead_lettered=1), restarts=Counter({"SIGKILL": 2}))}
    found = report(seat, receivers=["printer"], past=past)
    assert found["master"] == MASTER
    assert found["log_records_dropped"] == {"master": 0}
    [printer] = found["receivers"]
    restarts = printer.pop("restarts")  # type: ignore[misc]
    assert {cause: n for cause, n in restarts.items() if n} == {"SIGKILL": 2}
    assert set(USUAL) <= set(restarts)
    for key in ("seconds", "lateness"):
        histogram = printer.pop(key)  # type: ignore[misc]
        assert histogram["counts"] == [1, *[0] * 16]
        assert len(histogram["bounds"]) == 16
        assert histogram["sum"] == 0.0005
    assert printer == {
        "name": "printer",
        "state": "consuming",
        "delivered": 1,
        "handled": 15,
        "retried": 2,
        "dead_lettered": 1,
        "dropped": 0,
        "failed": {"ValueError": 3},
        "sent": 4,
        "send_failed": 0,
        "in_flight": 2,
        "oldest_in_flight": 2.0,
        "processes": [
            {
                "slot": "printer#0",
                "consuming": True,
                "started_at": 1_999_999_940.0,
                "silent": 1.0,
                "rss": 1048576,
            }
        ],
    }


def test_what_a_dead_child_had_in_hand_is_in_flight_no_more() -> None:
    crashed = FakeSeat(
        Slot(receiver="a", index=0, state=State.BACKOFF),
        record=FakeRecord(in_hand=[InHand(id="x", since=1.0)], last_beat=3.0),
        started_at=2.0,
    )
    [receiver] = report(crashed, receivers=["a"])["receivers"]
    assert (receiver["state"], receiver["in_flight"], receiver["oldest_in_flight"]) == ("backoff", 0, 0.0)
    assert receiver["processes"] == [
        {"slot": "a#0", "consuming": False, "started_at": None, "silent": None, "rss": None}
    ]


def test_while_one_takes_over_from_another_there_is_one_of_that_name() -> None:
    old = FakeSeat(Slot(receiver="a", index=0, state=State.CONSUMING, pid=1), started_at=10.0, rss=100)
    new = FakeSeat(Slot(receiver="a", index=0, state=State.STARTING, pid=2), started_at=90.0, rss=30, is_candidate=True)
    old.record.counters = new.record.counters = Counters(handled=1)
    old.record.in_hand = new.record.in_hand = [InHand(id="x", since=90.0)]
    [receiver] = report(old, new, receivers=["a"])["receivers"]
    [process] = receiver["processes"]
    assert (process["consuming"], process["started_at"], process["rss"]) == (True, 1_999_999_910.0, 130)
    assert (receiver["handled"], receiver["in_flight"]) == (2, 2)
    old.slot = Slot(receiver="a", index=0, state=State.DRAINING, pid=1)
    old.is_leaving = True
    new.slot = Slot(receiver="a", index=0, state=State.CONSUMING, pid=2)
    new.is_candidate = False
    [process] = report(old, new, receivers=["a"])["receivers"][0]["processes"]
    assert (process["consuming"], process["started_at"], process["rss"]) == (True, 1_999_999_990.0, 130)


def test_what_is_no_receiver_any_more_keeps_its_counts_and_has_no_state() -> None:
    past = {"gone": Past(counters=Counters(handled=3)), "scaled": Past()}
    found = {each["name"]: each for each in report(receivers=["scaled"], past=past)["receivers"]}
    assert (found["gone"]["state"], found["gone"]["handled"]) == (None, 3)
    assert (found["scaled"]["state"], found["scaled"]["processes"]) == ("stopped", [])


# With real seats: their counts only grow, whatever happens to them


class Source:
    posts = (Post(receiver="a"),)

    def fork(self, *arguments: object) -> int:
        raise AssertionError("nothing is forked here")

    def close(self) -> None: ...


def exit_of(seat: Seat) -> Record:
    """The record of its next child, when the one of now has died."""
    seat.record.clear()
    return Record(seat.record._bytes)


def test_counts_survive_crashes_replacements_and_removals() -> None:
    crew, source, post = Crew(Arena()), Source(), Post(receiver="a")
    seen = 0

    def total() -> int:
        nonlocal seen
        [receiver] = report(*crew.seats, receivers=crew.receivers, past=dict(crew.past))["receivers"]
        assert receiver["handled"] == receiver["failed"].get("E", 0) == sum(receiver["seconds"]["counts"])
        assert receiver["handled"] >= seen
        seen = receiver["handled"]
        return seen

    def work(record: Record) -> None:
        record.tally.handled(0.1)
        record.tally.failed(None, "E")

    first, second = crew.add(post, 0, source, 0.0), crew.add(post, 1, source, 0.0)
    work(first.record)
    work(second.record)
    work(exit_of(first))
    assert total() == 3
    # Another takes over, before and after the end of the old one.
    third = crew.add(post, 0, source, 0.0, heir_of=first)
    work(third.record)
    third.inherit(first)
    assert total() == 4
    work(first.record)
    crew.remove(first)
    assert total() == 5
    fourth = crew.add(post, 1, source, 0.0, heir_of=second)
    crew.remove(second)
    assert total() == 5
    fourth.inherit(second)
    work(fourth.record)
    assert total() == 6
    assert fourth.counters.handled == 2, "the status goes by places"
    # Scaled to nothing, and up again in the same memory.
    crew.remove(third)
    crew.remove(fourth)
    assert total() == 6
    work(crew.add(post, 0, source, 0.0).record)
    assert total() == 7


def test_new_seats_make_no_more_types_of_errors() -> None:
    crew, source, post = Crew(Arena()), Source(), Post(receiver="a")
    for generation in range(10):
        seat = crew.add(post, 0, source, 0.0)
        for n in range(20):
            seat.record.tally.failed(0.0, f"Error{generation}_{n}")
        crew.remove(seat)
    [receiver] = report(receivers=["a"], past=dict(crew.past))["receivers"]
    assert len(receiver["failed"]) == 25
    assert sum(receiver["failed"].values()) == 200
