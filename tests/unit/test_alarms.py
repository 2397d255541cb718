"""Of which receivers others are told, without a process: once when one fails, once when it has recovered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from domain_events.alerts import RECEIVER_FAILED, RECEIVER_RECOVERED
from domain_events.supervisor.alarms import Alarms
from domain_events.supervisor.exits import Ending
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.slots import Booted, Consuming, Event, Exited, Forked, LastExit, Rules, Slot
from domain_events.supervisor.transitions import step

RULES = Rules(backoff=Backoff(base=1.0, cap=2.0), stable_after=30.0)


@dataclass
class Seat:
    slot: Slot
    stays: bool = True
    had_alert: bool = False

    def goes(self, event: Event, now: float) -> None:
        self.slot, _ = step(self.slot, event, now, RULES)

    def crashes(self, now: float) -> None:
        self.goes(Forked(1), now)
        self.goes(Exited(exit=LastExit(ending=Ending(code=70), at=now), spread=0.5), now)

    def consumes(self, now: float) -> None:
        for event in (Forked(1), Booted(), Consuming()):
            self.goes(event, now)


def seat(name: str = "printer", index: int = 0) -> Seat:
    return Seat(Slot(receiver=name, index=index))


def kinds(alarms: Alarms, seats: list[Seat], now: float) -> list[tuple[str, str]]:
    return [(alert.routing_key, alert.data["slot"]) for alert in alarms.look(seats, now)]


def test_a_receiver_in_backoff_is_nobodys_business_and_a_failed_one_is_told_of_once() -> None:
    alarms, one = Alarms(RULES, 7), seat()
    one.crashes(0.0)
    assert kinds(alarms, [one], 0.0) == []
    one.crashes(1.0)
    [alert] = alarms.look([one], 1.0)
    assert (alert.routing_key, alert.domain_object_id) == (RECEIVER_FAILED, "printer")
    data = {name: value for name, value in alert.data.items() if name != "host"}
    assert data == {
        "receiver": "printer",
        "slot": "printer#0",
        "state": "failed",
        "reason": "did not boot (exit 70)",
        "restarts": 2,
        "pid": 7,
    }
    for now in range(2, 100):
        one.crashes(float(now))
        assert kinds(alarms, [one], float(now)) == []


def test_the_other_processes_of_a_receiver_that_failed_are_not_told_of() -> None:
    alarms, seats = Alarms(RULES, 7), [seat(), seat(index=1), seat("mailer")]
    for each in seats:
        each.crashes(0.0)
        each.crashes(1.0)
    assert kinds(alarms, seats, 1.0) == [(RECEIVER_FAILED, "printer#0"), (RECEIVER_FAILED, "mailer#0")]


def test_it_has_recovered_when_all_of_its_processes_have_consumed_for_a_while() -> None:
    alarms, seats = Alarms(RULES, 7), [seat(), seat(index=1)]
    for now in (0.0, 1.0):
        seats[0].crashes(now)
    seats[1].consumes(0.0)
    assert kinds(alarms, seats, 1.0) == [(RECEIVER_FAILED, "printer#0")]
    seats[0].consumes(10.0)
    assert alarms.due(seats, 10.0) == 30.0
    assert kinds(alarms, seats, 39.0) == []
    assert alarms.due(seats, 39.0) == 40.0
    assert kinds(alarms, seats, 40.0) == [(RECEIVER_RECOVERED, "printer#0")]
    assert alarms.due(seats, 40.0) is None
    assert kinds(alarms, seats, 41.0) == []


def test_one_that_consumes_and_crashes_by_turns_is_told_of_once() -> None:
    alarms, one, told = Alarms(RULES, 7), seat(), []
    for turn in range(50):
        one.consumes(turn * 30.0)
        told += kinds(alarms, [one], turn * 30.0 + 29.0)
        one.goes(Exited(exit=LastExit(ending=Ending(code=70), at=0.0), spread=0.5), turn * 30.0 + 29.5)
        told += kinds(alarms, [one], turn * 30.0 + 29.5)
    assert told == [(RECEIVER_FAILED, "printer#0")]


def test_one_that_died_with_an_alert_in_hand_fails_in_silence_and_with_another_event_it_does_not() -> None:
    alarms, one = Alarms(RULES, 7), seat()
    one.crashes(0.0)
    one.crashes(1.0)
    one.had_alert = True
    assert kinds(alarms, [one], 1.0) == []
    one.crashes(2.0)
    one.had_alert = False
    assert kinds(alarms, [one], 2.0) == [(RECEIVER_FAILED, "printer#0")]


def test_one_on_trial_is_not_told_of_and_one_that_is_gone_is_forgotten() -> None:
    alarms, one = Alarms(RULES, 7), seat()
    one.crashes(0.0)
    one.crashes(1.0)
    one.stays = False
    assert kinds(alarms, [one], 1.0) == []
    one.stays = True
    assert kinds(alarms, [one], 1.0) == [(RECEIVER_FAILED, "printer#0")]
    assert kinds(alarms, [], 2.0) == []
    one.slot = replace(one.slot)
    assert kinds(alarms, [one], 3.0) == [(RECEIVER_FAILED, "printer#0")]
