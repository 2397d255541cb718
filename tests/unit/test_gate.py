"""The gate: many at a time, or one alone, in the order of arrival."""

from __future__ import annotations

from domain_events.gate import Gate


class Guest:
    """Knows whether he is inside."""

    def __init__(self, gate: Gate, *, alone: bool = False) -> None:
        self.is_inside = gate.enter(alone)
        if not self.is_inside:
            gate.queue(alone, self._admitted)

    def _admitted(self) -> None:
        self.is_inside = True


def inside(*guests: Guest) -> list[bool]:
    return [guest.is_inside for guest in guests]


def test_any_number_is_inside_together() -> None:
    gate = Gate()
    assert inside(*(Guest(gate) for _ in range(5))) == [True] * 5


def test_one_that_wants_to_be_alone_waits_until_all_have_left_and_keeps_the_others_out() -> None:
    gate = Gate()
    first, second = Guest(gate), Guest(gate)
    lone = Guest(gate, alone=True)
    gate.leave()
    assert inside(first, second, lone) == [True, True, False]
    gate.leave()
    assert lone.is_inside
    third, fourth = Guest(gate), Guest(gate)
    assert inside(third, fourth) == [False, False]
    gate.leave()
    assert inside(third, fourth) == [True, True]


def test_an_empty_gate_lets_it_in_at_once() -> None:
    assert Guest(Gate(), alone=True).is_inside


def test_who_comes_later_waits_behind_one_that_waits_to_be_alone() -> None:
    gate = Gate()
    Guest(gate)
    lone, later, another, last = Guest(gate, alone=True), Guest(gate), Guest(gate, alone=True), Guest(gate)
    assert inside(lone, later, another, last) == [False] * 4
    gate.leave()
    assert inside(lone, later, another, last) == [True, False, False, False]
    gate.leave()
    assert inside(lone, later, another, last) == [True, True, False, False]
    gate.leave()
    assert inside(another, last) == [True, False]
    gate.leave()
    assert last.is_inside


def test_whoever_found_it_closed_and_queues_when_it_has_opened_is_inside_at_once() -> None:
    gate = Gate()
    Guest(gate, alone=True)
    assert not gate.enter(False)
    gate.leave()
    called: list[bool] = []
    gate.queue(False, lambda: called.append(True))
    assert called == [True]


def test_open_lets_in_all_that_wait() -> None:
    gate = Gate()
    Guest(gate)
    waiting = [Guest(gate, alone=True), Guest(gate), Guest(gate, alone=True)]
    gate.open()
    assert inside(*waiting) == [True] * 3
    for _ in range(4):
        gate.leave()
    assert Guest(gate, alone=True).is_inside
