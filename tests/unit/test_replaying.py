"""Which letters a replay takes, what it counts, and when it stops; without a broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from pika import BasicProperties

from domain_events import DomainEvent
from domain_events.errors import SendError
from domain_events.transport.dead_letters.letter import Letter
from domain_events.transport.dead_letters.queue import DeadLetterQueue
from domain_events.transport.dead_letters.wanted import Wanted
from domain_events.transport.dead_letters.working import MOST_UNKNOWN, Tally, Work
from domain_events.transport.outcomes import Outcome
from domain_events.transport.wire import DEAD_AT, ERROR_TYPE


class Written:
    """As a DeadLetterQueue, of these letters."""

    def __init__(self, letters: Sequence[Letter], become: Callable[[str], Sequence[Outcome]] = lambda _id: ()) -> None:
        """`become`: the outcomes of an event with this id."""
        self.replayed: list[Letter] = []
        self.discarded: list[Letter] = []
        self.outcomes: list[Outcome] = []
        self.moved = 0
        self.looked = 0
        self.pause = 0.0  # seconds before each outcome
        self._letters = letters
        self._become = become

    def pages(self) -> Iterator[list[Letter]]:
        for begin in range(0, len(self._letters), 10):
            self.looked += 1
            yield list(self._letters[begin : begin + 10])

    def replay(self, letters: Sequence[Letter], replay: str, *, with_outcome: bool = False) -> None:
        self.replayed += letters
        self.moved += len(letters)
        for letter in letters:
            self.outcomes += self._become(letter.id)

    def discard(self, letters: Sequence[Letter]) -> None:
        self.discarded += letters

    def outcome(self, timeout: float) -> Outcome | None:
        time.sleep(self.pause)
        return self.outcomes.pop(0) if self.outcomes else None


def work(queue: Written, wanted: Wanted = Wanted(), **settings: Any) -> Work:  # noqa: B008 - frozen
    return Work(queue=cast(DeadLetterQueue, queue), wanted=wanted, **settings)


def letter(n: int, *, dead_at: float = 100.0, event_id: str | None = None) -> Letter:
    event = DomainEvent("user.disabled", n, uuid_string=event_id or f"id-{n}")
    headers = {DEAD_AT: str(dead_at), ERROR_TYPE: "ValueError"}
    return Letter(n, "printer:dead", BasicProperties(headers=headers), event.encode())


def handled(event_id: str) -> list[Outcome]:
    return [Outcome(id=event_id, kind="handled")]


def test_one_that_dies_after_its_retries_stops_the_others() -> None:
    cause = letter(1).fingerprint.key

    def become(event_id: str) -> list[Outcome]:
        if event_id == "id-0":
            return handled(event_id)
        return [
            Outcome(id=event_id, kind="retried", delay=1.0),
            Outcome(id=event_id, kind="dead-lettered", reason="no", fingerprint=cause),
        ]

    queue = Written([letter(n) for n in range(400)], become)
    tally = work(queue).replay(canary=5.0)
    assert "for the same cause" in tally.stopped
    assert len(queue.replayed) < 400
    assert tally.dead_again >= 1


def test_letters_with_the_same_id_are_counted_each() -> None:
    queue = Written([letter(n, event_id="the same") for n in range(30)], handled)
    tally = work(queue).replay(canary=5.0)
    assert (tally.done, tally.handled, tally.unknown, tally.stopped) == (30, 30, 0, "")
    queue = Written(
        [letter(n, event_id="the same") for n in range(30)], lambda each: handled(each) if queue.moved < 2 else []
    )
    tally = work(queue).replay(canary=0.1)
    assert (tally.done, tally.handled, tally.unknown) == (30, 1, 29)


def test_a_slow_receiver_is_waited_for_as_long_as_it_tells_of_any_event() -> None:
    queue = Written([letter(n) for n in range(3 * MOST_UNKNOWN)], handled)
    queue.pause = 0.01
    tally = work(queue).replay(canary=1.0)
    assert (tally.handled, tally.unknown, tally.stopped) == (3 * MOST_UNKNOWN, 0, "")


def test_one_that_is_said_to_die_in_years_is_none_that_has_come_meanwhile() -> None:
    letters = [letter(1, dead_at=time.time() + 30.0), letter(2, dead_at=253402300799.0)]
    queue = Written(letters)
    found: list[Letter] = []
    tally = work(queue, found=found.append).discard()
    assert (tally.done, tally.newer) == (1, 1)
    assert queue.discarded == letters[1:]
    assert found == letters  # it exists, though it is left


@pytest.mark.parametrize("do", [Work.discard, Work.replay])
def test_who_interrupts_does_not_wait_for_a_look_through_all(do: Callable[[Work], Tally]) -> None:
    queue, stop = Written([letter(n) for n in range(100)]), threading.Event()
    stop.set()
    tally = do(work(queue, Wanted(error_type="KeyError"), stop=stop))
    assert queue.looked == 1
    assert tally.stopped == "interrupted"


def test_what_was_replayed_before_an_error_is_counted() -> None:
    class Failing(Written):
        def replay(self, letters: Sequence[Letter], replay: str, *, with_outcome: bool = False) -> None:
            self.moved += 3
            raise SendError("no confirm")

    task = work(Failing([letter(n) for n in range(5)]))
    with pytest.raises(SendError):
        task.replay()
    assert task.tally.done == 3
