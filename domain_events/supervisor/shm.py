"""What a child notes down for its master: the event in hand, and counters. Readable after its death.

One page of anonymous shared memory for each slot: it costs no file descriptor, and slots can come and go.
Only the child writes, without locks: a lock that a killed child holds would never open again.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

_SIZE = mmap.PAGESIZE
_LENGTH, _HANDLED, _RETRIED, _DEAD_LETTERED = range(4)  # in words of 8 bytes
_ID_AT = 64  # in bytes
_LONGEST_ID = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Since the slot exists, over all of its children: so that they only ever grow."""

    handled: int
    retried: int
    dead_lettered: int


class Record:
    """The notes of one slot."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE)
        self._bytes = memoryview(self._page)
        self._words = self._bytes.cast("Q")  # an aligned word is written at once, never in halves

    def begin(self, event_id: str) -> None:
        """This event is in hand now."""
        text = event_id.encode(errors="replace")[:_LONGEST_ID]
        # The length goes last: who dies in between leaves no id rather than a mixture of two.
        self._words[_LENGTH] = 0
        self._bytes[_ID_AT : _ID_AT + len(text)] = text
        self._words[_LENGTH] = len(text)

    def end(self) -> None:
        """No event is in hand."""
        self._words[_LENGTH] = 0

    def count_handled(self) -> None:
        self._words[_HANDLED] += 1

    def count_retried(self) -> None:
        self._words[_RETRIED] += 1

    def count_dead_lettered(self) -> None:
        self._words[_DEAD_LETTERED] += 1

    @property
    def in_hand(self) -> str | None:
        """The id of the event in hand. Exact once the child is dead; before, it may be of a moment ago."""
        length = self._words[_LENGTH]
        if not length:
            return None
        return bytes(self._bytes[_ID_AT : _ID_AT + length]).decode(errors="replace")

    @property
    def counters(self) -> Counters:
        return Counters(
            handled=self._words[_HANDLED],
            retried=self._words[_RETRIED],
            dead_lettered=self._words[_DEAD_LETTERED],
        )
