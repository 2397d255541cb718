"""What a child counts, in shared memory: how often, how long, how late, and which errors. And the sums over children.

One process at a time writes a tally: so adding needs no lock between processes, and what a killed child has counted
stands there for its successor to go on with.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock, RLock

from domain_events.measuring import (
    LATENESS,
    LATEST,
    LONGEST_ERROR_TYPE,
    MOST_ERROR_TYPES,
    OTHER,
    SECONDS,
    lateness,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts`: in each bucket alone, of which the last one has no bound. `sum` in seconds."""

    counts: tuple[int, ...]
    sum: float = 0.0

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(counts=counts, sum=self.sum + other.sum)


_NONE_TIMED = Histogram(counts=(0,) * (len(SECONDS) + 1))
_NONE_LATE = Histogram(counts=(0,) * (len(LATENESS) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Over all children of a slot, or of a receiver: they only ever grow."""

    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0
    dropped: int = 0  # of those, where the receiver wants no dead letters
    sent: int = 0
    send_failed: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)  # by the type of the error
    seconds: Histogram = _NONE_TIMED
    lateness: Histogram = _NONE_LATE

    @property
    def delivered(self) -> int:
        """How often a handler was called: each time it is known how late."""
        return sum(self.lateness.counts)

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            handled=self.handled + other.handled,
            retried=self.retried + other.retried,
            dead_lettered=self.dead_lettered + other.dead_lettered,
            dropped=self.dropped + other.dropped,
            sent=self.sent + other.sent,
            send_failed=self.send_failed + other.send_failed,
            failed=Counter(self.failed) + Counter(other.failed),
            seconds=self.seconds + other.seconds,
            lateness=self.lateness + other.lateness,
        )


# In words of 8 bytes.
_HANDLED, _RETRIED, _DEAD_LETTERED, _DROPPED, _SENT, _SEND_FAILED, _OTHER = range(7)
_SECONDS_SUM = 8
_SECONDS_AT = 9
_LATENESS_SUM = _SECONDS_AT + len(SECONDS) + 1
_LATENESS_AT = _LATENESS_SUM + 1
_ERRORS_AT = _LATENESS_AT + len(LATENESS) + 1
_LENGTH, _NAME = 1, 2  # in an error's cell, which begins with its count
_CELL = _NAME + LONGEST_ERROR_TYPE // 8
_ERRORS = range(_ERRORS_AT, _ERRORS_AT + MOST_ERROR_TYPES * _CELL, _CELL)

SIZE = 8 * _ERRORS.stop
"""Bytes."""


class Tally:
    """For one thread that handles events; any thread may send some."""

    def __init__(self, view: memoryview) -> None:
        self._bytes = view
        self._words = view.cast("Q")  # an aligned word is written at once, never in halves
        self._doubles = view.cast("d")
        self._errors = {name: cell for cell, name in self._named()}
        # Events are sent by any thread, and by a signal handler that interrupts another sending.
        self._sending = RLock()

    # In the child. The first two are called for every event.

    def started(self, timestamp: float) -> None:
        """The handler is about to be called for an event of this Unix time."""
        late = time.time() - timestamp
        if not 0.0 <= late <= LATEST:
            late = lateness(timestamp, time.time())
        self._words[_LATENESS_AT + bisect_left(LATENESS, late)] += 1
        self._doubles[_LATENESS_SUM] += late

    def handled(self, seconds: float) -> None:
        words = self._words
        words[_HANDLED] += 1
        words[_SECONDS_AT + bisect_left(SECONDS, seconds)] += 1
        self._doubles[_SECONDS_SUM] += seconds

    def failed(self, seconds: float | None, error_type: str) -> None:
        """`seconds`: None when no handler was called. `error_type`: as `measuring.error_type` has made it."""
        if seconds is not None:
            self._words[_SECONDS_AT + bisect_left(SECONDS, seconds)] += 1
            self._doubles[_SECONDS_SUM] += seconds
        self._words[self._cell(error_type)] += 1

    def retried(self) -> None:
        self._words[_RETRIED] += 1

    def dead_lettered(self, *, dropped: bool) -> None:
        if dropped:
            self._words[_DROPPED] += 1
        self._words[_DEAD_LETTERED] += 1

    def sent(self) -> None:
        with self._sending:
            self._words[_SENT] += 1

    def send_failed(self) -> None:
        with self._sending:
            self._words[_SEND_FAILED] += 1

    def _cell(self, error_type: str) -> int:
        """Where to count it."""
        known = self._errors.get(error_type)
        if known is not None:
            return known
        cell = _ERRORS_AT + len(self._errors) * _CELL
        if error_type == OTHER or cell not in _ERRORS:
            return _OTHER
        name = error_type.encode()
        self._bytes[8 * (cell + _NAME) : 8 * (cell + _NAME) + len(name)] = name
        # Last: of who dies in between, the name is not there.
        self._words[cell + _LENGTH] = len(name)
        self._errors[error_type] = cell
        return cell

    # In the master

    def know(self, error_types: Iterable[str]) -> None:
        """Before its first child: these types have a place already, as many as there are places."""
        for each in error_types:
            self._cell(each)

    def read(self) -> Counters:
        """As of now. While the child lives one of them may be of a moment ago, and another is not."""
        words = self._words
        failed = {**{name: words[cell] for cell, name in self._named()}, OTHER: words[_OTHER]}
        return Counters(
            handled=words[_HANDLED],
            retried=words[_RETRIED],
            dead_lettered=words[_DEAD_LETTERED],
            dropped=words[_DROPPED],
            sent=words[_SENT],
            send_failed=words[_SEND_FAILED],
            failed={name: n for name, n in failed.items() if n},
            seconds=self._histogram(_SECONDS_SUM, _SECONDS_AT, _LATENESS_SUM),
            lateness=self._histogram(_LATENESS_SUM, _LATENESS_AT, _ERRORS_AT),
        )

    def _histogram(self, sum_at: int, begin: int, end: int) -> Histogram:
        return Histogram(counts=tuple(self._words[begin:end].tolist()), sum=self._doubles[sum_at])

    def _named(self) -> Iterator[tuple[int, str]]:
        """The cells of errors in use."""
        for cell in _ERRORS:
            length = self._words[cell + _LENGTH]
            if not length:
                return
            at = 8 * (cell + _NAME)
            yield cell, bytes(self._bytes[at : at + length]).decode(errors="replace")


class SharedTally(Tally):
    """For several threads that handle events."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view)
        self._handling = Lock()

    # The first two without super(), which would take as long as the lock.

    def started(self, timestamp: float) -> None:
        with self._handling:
            Tally.started(self, timestamp)

    def handled(self, seconds: float) -> None:
        with self._handling:
            Tally.handled(self, seconds)

    def failed(self, seconds: float | None, error_type: str) -> None:
        with self._handling:
            super().failed(seconds, error_type)

    def retried(self) -> None:
        with self._handling:
            super().retried()

    def dead_lettered(self, *, dropped: bool) -> None:
        with self._handling:
            super().dead_lettered(dropped=dropped)
