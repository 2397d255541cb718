"""Which events were in hand when a consumer died: noted by the master, judged by the children of one receiver.

In shared memory, for the event that killed one child may come to another that runs already. It is a note for
some events, not a ledger: the oldest makes room for the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from domain_events.oversight import Suspicion

_ENTRIES = 8
_ENTRY = 16 * 1024  # bytes
SIZE = (_ENTRIES + 1) * _ENTRY  # of the region; the first entry's place holds one word
_USED = 0  # a word: whether there ever was an entry
_DIGEST, _DEATHS, _CONDEMNED, _NUMBER, _CAUSE, _STACKS = 0, 2, 3, 4, 5, 6  # words in an entry; the last two: lengths
_CAUSE_AT = 64  # bytes, in an entry
_LONGEST_CAUSE = 192
_STACKS_AT = _CAUSE_AT + _LONGEST_CAUSE
_LONGEST_STACKS = _ENTRY - _STACKS_AT


class Blame:
    """The notes about one receiver's events."""

    def __init__(self, view: memoryview) -> None:
        self._bytes = view
        self._words = view.cast("Q")

    # In the master

    def note(self, ids: Sequence[str], cause: str, stacks: str, max_crashes: int) -> None:
        """A consumer died while these events were in hand. `max_crashes`: deaths after which one is condemned.

        One of several may be innocent, so several are suspected but never condemned together: a suspect is
        handled alone, and the next death tells. 0: nobody is ever condemned.
        """
        for event_id in ids:
            digest = _digest(event_id)
            entry = self._find(digest)
            deaths = 1 if entry is None else int(self._words[entry + _DEATHS]) + 1
            is_alone = len(ids) == 1
            condemned = is_alone and 0 < max_crashes <= deaths
            if not is_alone and max_crashes:
                deaths = max(1, min(deaths, max_crashes - 1))
            self._write(self._oldest() if entry is None else entry, digest, deaths, condemned, cause, stacks)
        if ids:
            self._words[_USED] = 1

    # In a child

    def judge(self, event_id: str) -> Suspicion | None:
        """What is known of this event."""
        if not self._words[_USED]:
            return None
        entry = self._find(_digest(event_id))
        if entry is None:
            return None
        return Suspicion(
            deaths=self._words[entry + _DEATHS],
            cause=self._text(entry, _CAUSE, _CAUSE_AT),
            stacks=self._text(entry, _STACKS, _STACKS_AT),
            condemned=bool(self._words[entry + _CONDEMNED]),
        )

    def forgive(self, event_id: str) -> None:
        """It was settled, and nobody died: when it is replayed it starts anew."""
        if self._words[_USED]:
            entry = self._find(_digest(event_id))
            if entry is not None:
                self._words[entry + _DEATHS] = 0

    def _find(self, digest: tuple[int, int]) -> int | None:
        for entry in _entries():
            if self._words[entry + _DEATHS] and (self._words[entry], self._words[entry + 1]) == digest:
                return entry
        return None

    def _oldest(self) -> int:
        return min(_entries(), key=lambda at: (bool(self._words[at + _DEATHS]), self._words[at + _NUMBER]))

    def _write(
        self, entry: int, digest: tuple[int, int], deaths: int, condemned: bool, cause: str, stacks: str
    ) -> None:
        # A child may be reading: without deaths there is no entry.
        self._words[entry + _DEATHS] = 0
        self._words[entry], self._words[entry + 1] = digest
        self._words[entry + _CONDEMNED] = condemned
        self._words[entry + _NUMBER] = 1 + max(self._words[at + _NUMBER] for at in _entries())
        self._put(entry, _CAUSE, _CAUSE_AT, cause, _LONGEST_CAUSE)
        self._put(entry, _STACKS, _STACKS_AT, stacks, _LONGEST_STACKS)
        self._words[entry + _DEATHS] = deaths

    def _put(self, entry: int, length: int, offset: int, text: str, limit: int) -> None:
        data = text.encode(errors="replace")[:limit]
        at = entry * 8 + offset
        self._bytes[at : at + len(data)] = data
        self._words[entry + length] = len(data)

    def _text(self, entry: int, length: int, offset: int) -> str:
        at = entry * 8 + offset
        size = min(self._words[entry + length], _ENTRY - offset)
        return bytes(self._bytes[at : at + size]).decode(errors="replace")


def _entries() -> range:
    """Where each begins, in words."""
    return range(_ENTRY // 8, SIZE // 8, _ENTRY // 8)


def _digest(event_id: str) -> tuple[int, int]:
    digest = hashlib.blake2b(event_id.encode(errors="replace"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
