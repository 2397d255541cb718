"""The notes of one slot in shared memory: which events are in hand, a sign of life, and the tally."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from struct import Struct

from domain_events.supervisor.tallies import SIZE as TALLY_SIZE
from domain_events.supervisor.tallies import Counters, SharedTally, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """An event that a handler is busy with. `since`: seconds of the monotonic clock."""

    id: str
    since: float


# In bytes, but for the sign of life, which is the first word.
_BEAT = 0
_TALLY_AT = 64
_CELLS_AT = _TALLY_AT + TALLY_SIZE
_LENGTH_AT, _ID_AT = 8, 16  # in bytes, in a cell, which begins with the time since when its event is in hand
_CELL = 272
_LONGEST_ID = _CELL - _ID_AT  # RabbitMQ's limit for a message_id is 255
_write_id = Struct(f"=Q{_LONGEST_ID}s").pack_into  # its length, and the id


def record_size(concurrency: int) -> int:
    """Bytes for the notes of a child that handles so many events at a time."""
    return _CELLS_AT + concurrency * _CELL


class Record:
    """The notes of one slot: a cell for each event in hand, a tally, and the last sign of life."""

    def __init__(self, view: memoryview, concurrency: int = 1) -> None:
        # Whoever handles events alone does not pay for a lock.
        self.tally = (Tally if concurrency == 1 else SharedTally)(view[_TALLY_AT:_CELLS_AT])
        self._bytes = view
        self._words = view.cast("Q")  # an aligned word is written at once, never in halves
        # Each goes by the word that tells since when its event is in hand.
        self._cells = range(_CELLS_AT // 8, (_CELLS_AT + concurrency * _CELL) // 8, _CELL // 8)
        self._unused = deque(self._cells)

    # In the child

    def begin(self, event_id: str) -> int:
        """This event is in hand now; gives the cell that `end` takes."""
        cell = self._unused.popleft()
        text = event_id.encode("utf-8", "replace")[:_LONGEST_ID]
        _write_id(self._bytes, 8 * cell + _LENGTH_AT, len(text), text)
        # Last: who dies in between leaves no event rather than a mixture of two.
        self._words[cell] = time.monotonic_ns()
        return cell

    def end(self, cell: int) -> None:
        self._words[cell] = 0
        self._unused.append(cell)

    def beat(self) -> None:
        self._words[_BEAT] = time.monotonic_ns()

    # In the master

    def clear(self) -> None:
        """For the next child: nothing is in hand, and no sign of life was given. The tally goes on."""
        self._words[_BEAT] = 0
        for cell in self._cells:
            self._words[cell] = 0

    @property
    def last_beat(self) -> float | None:
        """Seconds of the monotonic clock; None before the first sign of life."""
        return self._words[_BEAT] / 1e9 or None

    @property
    def in_hand(self) -> list[InHand]:
        """Oldest first. Exact once the child is dead; before, it may be of a moment ago."""
        found = []
        for cell in self._cells:
            since = self._words[cell]
            if since:
                length_at = 8 * cell + _LENGTH_AT
                id_at = 8 * cell + _ID_AT
                text = bytes(self._bytes[id_at : id_at + self._words[length_at // 8]])
                found.append(InHand(id=text.decode(errors="replace"), since=since / 1e9))
        return sorted(found, key=lambda event: event.since)

    @property
    def counters(self) -> Counters:
        return self.tally.read()
