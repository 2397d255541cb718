"""Dead letters that have the same cause, counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from domain_events.showing import one_line
from domain_events.transport.dead_letters.fingerprint import Fingerprint
from domain_events.transport.dead_letters.letter import Letter

MOST_GROUPS = 1000
"""Unless somebody wants fewer. The letters of further ones are counted together."""

_LONGEST_WORD = 200  # characters


@dataclass(slots=True, kw_only=True)
class Group:
    """Letters with the same fingerprint. Times in Unix seconds."""

    fingerprint: Fingerprint
    count: int = 0
    first: float | None = None
    last: float | None = None
    said: str = ""
    """The error message of the newest, or its reason. One line."""

    def add(self, letter: Letter) -> None:
        self.count += 1
        dead_at = letter.dead_at
        if dead_at is not None:
            self.first = dead_at if self.first is None else min(self.first, dead_at)
        if self.last is None or (dead_at is not None and dead_at >= self.last):
            self.last, self.said = dead_at, one_line(letter.error_message or letter.reason, _LONGEST_WORD)


class Groups:
    """Of any number of letters, in bounded memory."""

    def __init__(self, most: int = MOST_GROUPS) -> None:
        self.count = 0
        self.others = 0
        """Letters of groups beyond `most`."""
        self._most = most
        self._groups: dict[str, Group] = {}

    def add(self, letter: Letter) -> None:
        self.count += 1
        fingerprint = letter.fingerprint
        group = self._groups.get(fingerprint.key)
        if group is None:
            if len(self._groups) >= self._most:
                self.others += 1
                return
            group = self._groups[fingerprint.key] = Group(fingerprint=fingerprint)
        group.add(letter)

    @property
    def largest_first(self) -> list[Group]:
        return sorted(self._groups.values(), key=lambda group: -group.count)
