"""Delivery tags that the broker waits for: few acks, and never one for what is not done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain_events.transport.unsettled import Unsettled


def with_tags(n: int) -> Unsettled:
    unsettled = Unsettled()
    for tag in range(1, n + 1):
        unsettled.add(tag)
    return unsettled


def test_nothing_done_is_nothing_to_ack() -> None:
    unsettled = with_tags(3)
    assert unsettled.take_acks() == []
    assert len(unsettled) == 3


def test_everything_done_is_one_ack() -> None:
    unsettled = with_tags(3)
    for tag in (1, 2, 3):
        unsettled.done(tag)
    assert unsettled.take_acks() == [(3, True)]
    assert len(unsettled) == 0
    assert unsettled.take_acks() == []


def test_a_single_event_is_acked_alone() -> None:
    unsettled = with_tags(1)
    unsettled.done(1)
    assert unsettled.take_acks() == [(1, False)]
    assert len(unsettled) == 0


def test_an_ack_of_many_stops_before_what_is_open_and_the_rest_goes_one_by_one() -> None:
    unsettled = with_tags(6)
    for tag in (1, 2, 4, 6):
        unsettled.done(tag)
    assert unsettled.take_acks() == [(2, True), (4, False), (6, False)]
    assert len(unsettled) == 2
    unsettled.done(3)
    assert unsettled.take_acks() == [(3, False)]
    unsettled.done(5)
    assert unsettled.take_acks() == [(5, False)]
    assert len(unsettled) == 0


def test_a_gap_at_the_beginning_forbids_any_ack_of_many() -> None:
    unsettled = with_tags(3)
    unsettled.done(2)
    unsettled.done(3)
    assert unsettled.take_acks() == [(2, False), (3, False)]


def test_what_was_given_back_is_no_gap() -> None:
    unsettled = with_tags(3)
    unsettled.remove(2)
    unsettled.done(1)
    unsettled.done(3)
    assert unsettled.take_acks() == [(3, True)]


def test_what_came_later_is_not_acked_with_what_is_done() -> None:
    unsettled = with_tags(2)
    unsettled.done(1)
    unsettled.done(2)
    unsettled.add(3)
    assert unsettled.take_acks() == [(2, True)]
    assert len(unsettled) == 1


class FakeBroker:
    """Knows what is open, and settles as AMQP says: an ack with `multiple` means every lower tag too."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def settle(self, tag: int, multiple: bool) -> set[int]:
        assert tag in self.open, "the broker closes the channel: unknown delivery tag"
        settled = {each for each in self.open if each <= tag} if multiple else {tag}
        self.open -= settled
        return settled


@given(st.lists(st.tuples(st.sampled_from(["deliver", "done", "give back", "ack"]), st.integers(0, 30)), max_size=200))
def test_in_any_order_exactly_what_is_done_is_acked(steps: list[tuple[str, int]]) -> None:
    broker, unsettled = FakeBroker(), Unsettled()
    tag = 0
    in_hand: list[int] = []
    done: set[int] = set()
    acked: set[int] = set()
    for step, number in [*steps, ("ack", 0)]:
        match step:
            case "deliver":
                tag += 1
                broker.open.add(tag)
                unsettled.add(tag)
                in_hand.append(tag)
            case "done" if in_hand:
                finished = in_hand.pop(number % len(in_hand))
                unsettled.done(finished)
                done.add(finished)
            case "give back" if in_hand:
                returned = in_hand.pop(number % len(in_hand))
                unsettled.remove(returned)
                broker.settle(returned, multiple=False)
            case "ack":
                for last, multiple in unsettled.take_acks():
                    acked |= broker.settle(last, multiple)
                assert acked == done
    assert broker.open == set(in_hand)
    assert len(unsettled) == len(in_hand)


@given(st.permutations(range(1, 31)), st.sets(st.integers(1, 30)))
def test_when_events_end_in_any_order_no_ack_covers_one_in_hand(order: list[int], asked_after: set[int]) -> None:
    unsettled = with_tags(30)
    in_hand = set(order)
    acked: set[int] = set()
    for tag in order:
        unsettled.done(tag)
        in_hand.remove(tag)
        if tag in asked_after or not in_hand:
            for last, multiple in unsettled.take_acks():
                covered = set(range(1, last + 1)) - acked if multiple else {last}
                assert not covered & in_hand
                assert not covered & acked
                acked |= covered
    assert acked == set(order)
    assert len(unsettled) == 0
