"""Which events were in hand when a consumer died: noted by the master, judged by the children of one receiver.

In shared memory, for the event that killed one child may come to another that runs already. It is a note for
some events, not a ledger: the oldest makes room for the newest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from domain_events.oversight import Suspicion

ROWS = 1024
"""Events that can be remembered: all that most receivers have in hand at a time."""

_ACCOUNTS = 8  # stacks that can be remembered: one of them for all events of a death
_HEAD = 64  # bytes
_ROW = 32
_CAUSE = 192
_ACCOUNT = 16 * 1024
_CAUSES_AT = _HEAD + ROWS * _ROW
_ACCOUNTS_AT = _CAUSES_AT + ROWS * _CAUSE
SIZE = _ACCOUNTS_AT + _ACCOUNTS * _ACCOUNT
"""Bytes of the region. What is never needed costs nothing."""

_USED, _LAST = 0, 1  # words in the head: how many rows were ever written, and the number of the last death
_DEATHS, _NUMBER = 2, 3  # words in a row, after its digest; the number is that of the death that wrote it
_CONDEMNED = 1 << 32  # added to the deaths, so that one look sees both
_PATIENCE = 1.0  # seconds that a child waits for the master to write on
_PAUSE = 0.001


class Blame:
    """The notes about one receiver's events."""

    def __init__(self, view: memoryview) -> None:
        self._bytes = view
        self._words = view.cast("Q")  # an aligned word is written at once, never in halves

    # In the master

    def note(self, ids: Sequence[str], cause: str, stacks: str, max_crashes: int) -> None:
        """A consumer died while these events were in hand. `max_crashes`: deaths after which one is condemned.

        One of several may be innocent, so several are suspected but never condemned together: a suspect is
        handled alone, and the next death tells. 0: nobody is ever condemned.
        """
        digests = list(dict.fromkeys(map(_digest, ids)))[-ROWS:]  # twice the same event: no company
        if not digests:
            return
        number = self._words[_LAST] + 1
        self._write_account(number, stacks)
        found = [self._find(digest) for digest in digests]
        spare = iter(self._spare_rows(taken={row for row in found if row is not None}))
        is_alone = len(digests) == 1
        for digest, known in zip(digests, found, strict=True):
            deaths = 1 + (0 if known is None else self._deaths(known))
            condemned = is_alone and 0 < max_crashes <= deaths
            if not is_alone and max_crashes:
                deaths = max(1, min(deaths, max_crashes - 1))
            self._write(next(spare) if known is None else known, digest, deaths, condemned, number, cause)
        self._words[_LAST] = number

    # In a child

    def judge(self, event_id: str) -> Suspicion | None:
        """What is known of this event."""
        if not self._words[_USED]:
            return None
        digest = _digest(event_id)
        until = time.monotonic() + _PATIENCE
        while True:
            row = self._find(digest)
            if row is None:
                return None
            number = self._word(row, _NUMBER)
            if number:
                suspicion = self._read(row, number)
                # The master may have been writing: one row is read whole or not at all.
                if self._word(row, _NUMBER) == number and self._find(digest) == row:
                    return suspicion
            if time.monotonic() >= until:
                return None  # it was stopped in the middle of writing, or ended
            time.sleep(_PAUSE)

    def forgive(self, event_id: str) -> None:
        """It was handled and nobody died, or it is set aside: when it comes again it starts anew."""
        if self._words[_USED]:
            row = self._find(_digest(event_id))
            if row is not None:
                self._set(row, _DEATHS, 0)

    # Rows

    def _find(self, digest: bytes) -> int | None:
        """The row of an event that is not forgiven."""
        rows = bytes(self._bytes[_HEAD : _HEAD + self._words[_USED] * _ROW])
        at = rows.find(digest)
        while at >= 0:
            row, rest = divmod(at, _ROW)
            if not rest and self._word(row, _DEATHS):
                return row
            at = rows.find(digest, at + 1)
        return None

    def _spare_rows(self, taken: set[int]) -> list[int]:
        """Those of forgiven events, then unused ones, then the oldest."""
        used = self._words[_USED]
        rows = [row for row in range(used) if row not in taken]
        forgiven = [row for row in rows if not self._word(row, _DEATHS)]
        others = [row for row in rows if self._word(row, _DEATHS)]
        others.sort(key=lambda row: self._word(row, _NUMBER))
        return [*forgiven, *range(used, ROWS), *others]

    def _deaths(self, row: int) -> int:
        return self._word(row, _DEATHS) % _CONDEMNED

    def _read(self, row: int, number: int) -> Suspicion:
        deaths = self._word(row, _DEATHS)
        cause = _read_text(self._bytes, _CAUSES_AT + row * _CAUSE, _CAUSE)
        return Suspicion(
            deaths=deaths % _CONDEMNED,
            cause=cause,
            stacks=self._read_account(number),
            condemned=deaths >= _CONDEMNED,
        )

    def _write(self, row: int, digest: bytes, deaths: int, condemned: bool, number: int, cause: str) -> None:
        self._set(row, _NUMBER, 0)  # not to be read
        at = _HEAD + row * _ROW
        if self._bytes[at : at + len(digest)] != digest:
            self._set(row, _DEATHS, 0)  # it has been somebody else's
            self._bytes[at : at + len(digest)] = digest
        _write_text(self._bytes, _CAUSES_AT + row * _CAUSE, _CAUSE, cause)
        self._set(row, _DEATHS, deaths + (_CONDEMNED if condemned else 0))
        self._set(row, _NUMBER, number)
        self._words[_USED] = max(self._words[_USED], row + 1)

    def _word(self, row: int, word: int) -> int:
        return self._words[(_HEAD + row * _ROW) // 8 + word]

    def _set(self, row: int, word: int, value: int) -> None:
        self._words[(_HEAD + row * _ROW) // 8 + word] = value

    # Accounts: the stacks of a death, after its number

    def _write_account(self, number: int, stacks: str) -> None:
        at = _account(number)
        self._words[at // 8] = 0
        _write_text(self._bytes, at + 8, _ACCOUNT - 8, stacks)
        self._words[at // 8] = number

    def _read_account(self, number: int) -> str:
        at = _account(number)
        if self._words[at // 8] != number:
            return ""  # it is that of a later death by now
        text = _read_text(self._bytes, at + 8, _ACCOUNT - 8)
        return text if self._words[at // 8] == number else ""


def _account(number: int) -> int:
    return _ACCOUNTS_AT + number % _ACCOUNTS * _ACCOUNT


def _write_text(data: memoryview, at: int, size: int, text: str) -> None:
    """Its first `size` - 2 bytes, after their number."""
    encoded = text.encode(errors="replace")[: size - 2]
    data[at : at + 2 + len(encoded)] = len(encoded).to_bytes(2, "little") + encoded


def _read_text(data: memoryview, at: int, size: int) -> str:
    length = min(int.from_bytes(data[at : at + 2], "little"), size - 2)
    return bytes(data[at + 2 : at + 2 + length]).decode(errors="replace")


def _digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(errors="replace"), digest_size=16).digest()
