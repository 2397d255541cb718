"""What the observer of a child notes down for its master."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

import pytest

from domain_events.events import DomainEvent
from domain_events.supervisor import blame
from domain_events.supervisor.blame import Blame
from domain_events.supervisor.notes import Record, record_size
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.watching import Watching
from domain_events.supervisor.wear import Lifespan, Wear


def region(size: int) -> memoryview:
    """Of shared memory."""
    arena = Arena()
    return arena.view(arena.allocate(size))


def watched(concurrency: int = 1) -> tuple[Record, Watching]:
    notes = Record(region(record_size(concurrency)), concurrency)
    wear = Wear(Lifespan(), lambda reason: None)
    return notes, Watching(notes, Blame(region(blame.SIZE)), wear, lambda: None, lambda reason: None)


def in_hand(notes: Record) -> list[str]:
    return [event.id for event in notes.in_hand]


def event(identifier: str, timestamp: float | None = None) -> DomainEvent:
    return DomainEvent("user.disabled", {}, uuid_string=identifier, timestamp=timestamp)


def test_events_are_in_hand_from_their_start_to_their_outcome() -> None:
    notes, watching = watched(2)
    first, second = event("ä" * 127), event("second")
    assert notes.in_hand == []
    has_read = watching.reading("first")
    assert in_hand(notes) == ["first"]
    has_read()
    assert notes.in_hand == []
    watching.started("printer", first)
    watching.started("printer", second)
    assert in_hand(notes) == ["ä" * 127, "second"]
    watching.handled("printer", first, 0.1)
    assert in_hand(notes) == ["second"]
    watching.failed("printer", second, 0.1, ValueError(), "why")
    assert in_hand(notes) == ["second"], "its retry is not under way yet"
    watching.retried("printer", second, 0.1, 5.0)
    assert notes.in_hand == []


@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_outcome_is_counted(concurrency: int) -> None:
    notes, watching = watched(concurrency)
    for error in (None, ValueError(), ValueError(), KeyError()):
        one = event("x")
        watching.started("printer", one)
        if error is None:
            watching.handled("printer", one, 0.25)
            continue
        watching.failed("printer", one, 0.5, error, "why")
        if isinstance(error, ValueError):
            watching.retried("printer", one, 0.5, 5.0)
        else:
            watching.dead_lettered("printer", one, 0.5, "why", dropped=True)
    counters = notes.counters
    assert (counters.delivered, counters.handled, counters.retried) == (4, 1, 2)
    assert (counters.dead_lettered, counters.dropped) == (1, 1)
    assert counters.failed == {"ValueError": 2, "KeyError": 1}
    assert sum(counters.seconds.counts) == 4
    assert counters.seconds.sum == 0.25 + 3 * 0.5


def test_what_no_handler_was_called_for_took_no_time_and_was_not_delivered() -> None:
    notes, watching = watched()
    watching.failed("printer", None, 0.0, ValueError(), "malformed")
    watching.dead_lettered("printer", None, 0.0, "malformed", dropped=False)
    watching.failed("printer", event("condemned"), 0.0, None, "consumer died 2x (SIGSEGV)")
    watching.dead_lettered("printer", event("condemned"), 0.0, "consumer died 2x (SIGSEGV)", dropped=False)
    counters = notes.counters
    assert counters.failed == {"ValueError": 1, "ConsumerDied": 1}
    assert (counters.delivered, sum(counters.seconds.counts), counters.dead_lettered) == (0, 0, 2)


def test_no_count_is_lost_between_threads() -> None:
    notes, watching = watched(4)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for _ in range(2_000):
            one = event("x")
            watching.started("printer", one)
            watching.handled("printer", one, 0.002)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = notes.counters
    assert (counters.delivered, counters.handled, sum(counters.seconds.counts)) == (8_000,) * 3
    assert notes.in_hand == []


def test_what_is_sent_is_counted_in_every_thread() -> None:
    notes, watching = watched()

    def send() -> None:
        for _ in range(2_000):
            watching.sent(event("x"), 0.1)
            watching.send_failed(event("x"), ValueError())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (notes.counters.sent, notes.counters.send_failed) == (8_000, 8_000)


def test_an_event_costs_few_calls() -> None:
    """All that is done between the handlers of a child. Without the tally it was six, and half a microsecond less."""
    _, watching = watched()
    one, calls = event("x"), 0

    def count(frame: FrameType, kind: str, argument: object) -> None:
        nonlocal calls
        calls += kind == "call"

    gc.disable()  # it calls whoever asked for it, and finalizers of what others have left
    sys.setprofile(count)
    try:
        watching.started("printer", one)
        watching.handled("printer", one, 0.001)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert calls <= 8


def test_each_delay_of_a_retry_is_told_once_as_its_queue_has_it() -> None:
    delays: list[int] = []
    notes = Record(region(record_size(1)), 1)
    wear = Wear(Lifespan(), lambda reason: None)
    watching = Watching(
        notes, Blame(region(blame.SIZE)), wear, lambda: None, lambda reason: None, on_delay=delays.append
    )
    for seconds in (5.0, 1.234, 5.0, 1.25, 0.0, 0.3):
        again = event("again")
        watching.started("printer", again)
        watching.retried("printer", again, 0.1, seconds)
    assert delays == [5000, 1300, 300]  # a delay of 0 has no queue
