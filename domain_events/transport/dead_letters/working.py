"""Replaying and discarding: many letters, one after the other, with a pace, a canary, and an end at any time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from secrets import token_hex

from domain_events.transport.dead_letters.letter import Letter
from domain_events.transport.dead_letters.queue import MOST_AT_ONCE, DeadLetterQueue
from domain_events.transport.dead_letters.wanted import Wanted
from domain_events.transport.outcomes import Outcome

MOST_UNKNOWN = 100
"""Events of a replay with a canary that are with their receiver, and nobody knows yet how they end."""

FARTHEST_CLOCK = 300.0
"""Seconds that the clock of a receiver's host may be ahead of ours."""


@dataclass(slots=True)
class Tally:
    """Of a replay, or of what was discarded, as far as it has come."""

    seen: int = 0
    """Letters that were looked at."""
    done: int = 0
    """Of these, replayed or discarded."""
    came_back: int = 0
    """Became dead letters again while this replay went on; they were left."""
    newer: int = 0
    """Have come since the work began, by the clock of the host where they failed; they were left, too."""
    handled: int = 0
    """This and the next are known with a canary only."""
    retried: int = 0
    dead_again: int = 0
    unknown: int = 0
    """What became of them was not told in time."""
    stopped: str = ""
    """Why it went no further; empty: it came to its end."""


@dataclass(kw_only=True)
class Work:
    """`stop`: set it, by whatever thread, and the work ends with what it is doing. `moved` is told of each step."""

    queue: DeadLetterQueue
    wanted: Wanted
    stop: threading.Event = field(default_factory=threading.Event)
    moved: Callable[[Tally], object] = lambda _tally: None
    found: Callable[[Letter], object] = lambda _letter: None
    """Told of each that is wanted, also of those that are left."""
    tally: Tally = field(default_factory=Tally)

    def discard(self) -> Tally:
        """Raises BrokerError; the tally then tells what was done until then."""
        for batch in self._batches(500):
            self.queue.discard(batch)
            self._did(len(batch))
        return self._ended()

    def replay(self, *, rate: float | None = None, canary: float | None = None) -> Tally:
        """`rate`: events per second, at most. `canary`: seconds to wait for the outcome of the first event; the others
        follow when it was handled, until one of them comes to the end that its like had before. Raises BrokerError."""
        replaying = _Replay(self, rate, canary)
        size = MOST_AT_ONCE if rate is None else max(1, min(MOST_AT_ONCE, int(rate / 4)))
        for batch in self._batches(size, replaying.name):
            if not replaying.run(batch):
                break
        replaying.finish()
        return self._ended()

    def _batches(self, size: int, replay: str | None = None) -> Iterator[list[Letter]]:
        batch: list[Letter] = []
        began = time.time()
        for page in self.queue.pages():
            self.tally.seen += len(page)
            left = self.tally.came_back + self.tally.newer
            for letter in filter(self.wanted.matches, page):
                self.found(letter)
                if replay is not None and letter.replay == replay:
                    self.tally.came_back += 1
                    continue
                # Or there could be no end, while a receiver goes on failing. What says to die in days is none of it.
                if began < (letter.dead_at or 0.0) < time.time() + FARTHEST_CLOCK:
                    self.tally.newer += 1
                    continue
                batch.append(letter)
                if len(batch) == size:
                    yield batch
                    batch = []
                if self.stop.is_set():
                    return
            if self.stop.is_set():
                return
            if batch:  # their bodies must not wait for those of the next page
                yield batch
                batch = []
            self.moved(self.tally)
            if self.tally.came_back + self.tally.newer - left == len(page):
                return

    def _did(self, count: int) -> None:
        self.tally.done += count
        self.moved(self.tally)

    def _ended(self) -> Tally:
        if self.stop.is_set() and not self.tally.stopped:
            self.tally.stopped = "interrupted"
        return self.tally


class _Replay:
    def __init__(self, work: Work, rate: float | None, canary: float | None) -> None:
        self.name = token_hex(8)
        self._work = work
        self._queue = work.queue
        self._tally = work.tally
        self._rate = rate
        self._canary = canary
        self._next_at = time.monotonic()
        self._fingerprints: set[str] = set()
        self._under_way: Counter[str] = Counter()  # by id, those whose outcome nobody knows, if it is asked for

    def run(self, letters: list[Letter]) -> bool:
        """Whether to go on."""
        if self._canary is None:
            return self._send(letters)
        if not self._tally.done:
            return (
                self._send(letters[:1]) and self._sings(letters[0]) and (not letters[1:] or self._watched(letters[1:]))
            )
        return self._watched(letters)

    def finish(self) -> None:
        """Hear what became of the last ones."""
        if self._canary is None or self._tally.stopped:
            return
        self._heard(0, self._canary)
        self._tally.unknown = self._under_way.total()

    def _send(self, letters: list[Letter]) -> bool:
        if self._work.stop.wait(max(0.0, self._next_at - time.monotonic())):
            return False
        if self._rate is not None:
            self._next_at = max(time.monotonic(), self._next_at) + len(letters) / self._rate
        with_outcome = self._canary is not None
        if with_outcome:
            self._under_way.update(letter.id for letter in letters)
            self._fingerprints.update(letter.fingerprint.key for letter in letters)
        moved = self._queue.moved
        try:
            self._queue.replay(letters, self.name, with_outcome=with_outcome)
        finally:
            self._work._did(self._queue.moved - moved)
        return True

    def _sings(self, letter: Letter) -> bool:
        """The canary: whether it was handled."""
        assert self._canary is not None
        deadline = time.monotonic() + self._canary
        while self._under_way and not self._work.stop.is_set():
            if not self._hear(deadline - time.monotonic()) and time.monotonic() >= deadline:
                self._tally.unknown = 1
                self._tally.stopped = (
                    f"nobody has told within {self._canary:g} s what became of the first event, {letter.id}"
                    + (": it is retried" if self._tally.retried else "; is the receiver running?")
                )
                return False
        return self._tally.handled == 1

    def _watched(self, letters: list[Letter]) -> bool:
        assert self._canary is not None
        while self._hear(0.0):
            pass
        if not self._heard(MOST_UNKNOWN, self._canary) and not self._tally.stopped:
            self._tally.unknown = self._under_way.total()
            self._tally.stopped = (
                f"nobody has told within {self._canary:g} s what became of any of {self._tally.unknown} events"
            )
        return not self._tally.stopped and self._send(letters)

    def _heard(self, most: int, patience: float) -> bool:
        """Whether no more than `most` are unknown, or it is to end; False after `patience` seconds without a word."""
        deadline = time.monotonic() + patience
        while self._under_way.total() > most and not self._work.stop.is_set() and not self._tally.stopped:
            if self._hear(deadline - time.monotonic()):
                deadline = time.monotonic() + patience
            elif time.monotonic() >= deadline:
                return False
        return True

    def _hear(self, timeout: float) -> bool:
        """Of one outcome, within so many seconds, or a moment: somebody may want to stop."""
        outcome = self._queue.outcome(min(max(timeout, 0.0), 0.2))
        if outcome is None:
            return False
        # Not only of those under way: one that was retried is not waited for any more, and may die of it in the end.
        self._count(outcome)
        return True

    def _count(self, outcome: Outcome) -> None:
        match outcome.kind:
            case "handled":
                self._tally.handled += 1
            case "retried":
                # The canary's own is waited for; others may come after hours.
                self._tally.retried += 1
                if self._tally.done == 1:
                    return
            case "dead-lettered" | "dropped":
                self._tally.dead_again += 1
                if self._tally.done == 1:
                    self._tally.stopped = f"the first event, {outcome.id}, was {outcome.kind} again: {outcome.reason}"
                elif outcome.fingerprint is None or outcome.fingerprint in self._fingerprints:
                    self._tally.stopped = f"event {outcome.id} was {outcome.kind} for the same cause: {outcome.reason}"
        if self._under_way[outcome.id] > 1:
            self._under_way[outcome.id] -= 1
        else:
            del self._under_way[outcome.id]
        self._work.moved(self._tally)
