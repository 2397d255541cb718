"""The status that scripts rely on, without a process."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from domain_events.supervisor.exits import Ending
from domain_events.supervisor.reporting import WORST_FIRST, receiver_state, status_report
from domain_events.supervisor.slots import LastExit, Slot, State
from domain_events.supervisor.tallies import Counters


@dataclass
class FakeSeat:
    slot: Slot
    counters: Counters = field(default_factory=Counters)
    started_at: float | None = None
    in_flight: str | None = None
    rss: int | None = None
    is_leaving: bool = False
    is_candidate: bool = False


def seat(state: State, index: int = 0, *, leaving: bool = False, candidate: bool = False) -> FakeSeat:
    return FakeSeat(Slot(receiver="a", index=index, state=state), is_leaving=leaving, is_candidate=candidate)


def report(*seats: FakeSeat, receivers: tuple[str, ...] = ("a",)) -> dict[str, object]:
    return dict(status_report(seats, receivers=receivers, pid=1, state="running", uptime=3.00049, now=100.0))


def test_the_shape_is_that_of_the_contract() -> None:
    busy = FakeSeat(
        Slot(
            receiver="printer",
            index=0,
            state=State.CONSUMING,
            pid=42,
            restarts=3,
            last_exit=LastExit(ending=Ending(signal=9), at=1700000000.5, in_flight="id-0"),
        ),
        counters=Counters(handled=10, retried=2, dead_lettered=1),
        started_at=60.0,
        in_flight="id-1",
        rss=1048576,
    )
    assert report(busy, receivers=("printer", "mailer")) == {
        "master": {"pid": 1, "state": "running", "uptime": 3.0},
        "receivers": [
            {
                "name": "printer",
                "state": "consuming",
                "processes": [
                    {
                        "slot": "printer#0",
                        "pid": 42,
                        "state": "consuming",
                        "restarts": 3,
                        "uptime": 40.0,
                        "handled": 10,
                        "retried": 2,
                        "dead_lettered": 1,
                        "in_flight": "id-1",
                        "rss": 1048576,
                    }
                ],
                "last_exit": {"code": None, "signal": "SIGKILL", "at": 1700000000.5, "in_flight": "id-0"},
            },
            {"name": "mailer", "state": "stopped", "processes": [], "last_exit": None},
        ],
    }


def test_without_a_process_there_is_nothing_of_a_process() -> None:
    crashed = FakeSeat(Slot(receiver="a", index=0, state=State.BACKOFF, restarts=1), in_flight="x", rss=5, started_at=3)
    [process] = status_report([crashed], receivers=[], pid=1, state="running", uptime=0, now=9)["receivers"][0][
        "processes"
    ]
    assert [process[key] for key in ("pid", "uptime", "in_flight", "rss")] == [None] * 4
    assert process["state"] == "backoff"
    assert process["restarts"] == 1


def test_receivers_keep_their_order_and_those_that_leave_come_last() -> None:
    seats = [FakeSeat(Slot(receiver=name, index=0)) for name in ("gone", "b", "a", "b")]
    shown = status_report(seats, receivers=["a", "empty", "b"], pid=1, state="running", uptime=0, now=0)["receivers"]
    assert [(receiver["name"], len(receiver["processes"])) for receiver in shown] == [
        ("a", 1),
        ("empty", 0),
        ("b", 2),
        ("gone", 1),
    ]


def test_the_last_exit_is_the_latest_of_all_processes() -> None:
    exits = [
        LastExit(ending=Ending(code=70), at=5.0),
        LastExit(ending=Ending(code=3), at=7.0, in_flight="x"),
        None,
    ]
    seats = [FakeSeat(Slot(receiver="a", index=index, last_exit=exit_)) for index, exit_ in enumerate(exits)]
    [receiver] = status_report(seats, receivers=["a"], pid=1, state="running", uptime=0, now=0)["receivers"]
    assert receiver["last_exit"] == {"code": 3, "signal": None, "at": 7.0, "in_flight": "x"}


def test_every_state_that_is_shown_has_its_rank() -> None:
    assert set(WORST_FIRST) == {state.shown for state in State}


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ([], "stopped"),
        ([State.CONSUMING, State.CONSUMING], "consuming"),
        ([State.CONSUMING, State.WAITING], "starting"),
        ([State.CONSUMING, State.PENDING], "starting"),
        ([State.CONSUMING, State.BACKOFF], "backoff"),
        ([State.BACKOFF, State.FAILED], "failed"),
        ([State.STOPPED, State.DRAINING], "draining"),
        ([State.STOPPED, State.STOPPED], "stopped"),
        ([State.DRAINING, State.CONSUMING], "draining"),
    ],
)
def test_a_receiver_is_as_its_worst_process(states: list[State], shown: str) -> None:
    assert receiver_state([seat(state, index) for index, state in enumerate(states)]) == shown


def test_while_the_new_one_is_on_trial_the_old_one_counts() -> None:
    assert receiver_state([seat(State.CONSUMING), seat(State.STARTING, candidate=True)]) == "consuming"
    assert receiver_state([seat(State.CONSUMING), seat(State.BACKOFF, candidate=True)]) == "consuming"


def test_when_the_new_one_has_taken_over_it_counts() -> None:
    assert receiver_state([seat(State.DRAINING, leaving=True), seat(State.CONSUMING)]) == "consuming"


def test_where_nobody_else_is_the_one_on_trial_counts() -> None:
    both = [seat(State.DRAINING, leaving=True), seat(State.STARTING, candidate=True)]
    assert receiver_state(both) == "starting", "the old one had to go first"
    assert receiver_state([*both, seat(State.CONSUMING, 1)]) == "starting"
    assert receiver_state([seat(State.STARTING, candidate=True)]) == "starting", "a new receiver"


def test_those_that_leave_for_good_count_when_they_are_the_last() -> None:
    assert receiver_state([seat(State.CONSUMING), seat(State.DRAINING, 1, leaving=True)]) == "consuming"
    assert receiver_state([seat(State.DRAINING, 0, leaving=True), seat(State.STOPPED, 1, leaving=True)]) == "draining"
