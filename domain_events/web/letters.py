"""Dead letters as the page shows them: searched, grouped by cause, one in full. Bounded, however many there are."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from domain_events.errors import DomainEventError
from domain_events.registration import Registration
from domain_events.settings import configured_brokers
from domain_events.showing import one_line
from domain_events.transport.dead_letters.fingerprint import Fingerprint
from domain_events.transport.dead_letters.groups import Group, Groups
from domain_events.transport.dead_letters.letter import Detail, Letter, Summary
from domain_events.transport.dead_letters.queue import DeadLetterQueue
from domain_events.transport.dead_letters.wanted import Wanted
from domain_events.transport.wire import LARGE

MOST_SHOWN = 200
"""Of those that match, the newest."""

MOST_GROUPS = 100
"""The letters of further ones are counted together."""

LOOKING = 8.0
"""Seconds for one look; what it has not seen by then is not shown."""

_LOCK_PATIENCE = 5.0  # seconds, while somebody else looks
_LONGEST_DATA = 200_000  # characters
_LONGEST_HEADER = 2_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What somebody has asked for. Empty: whatever it is. `age`: seconds since they died, at most."""

    fingerprint: str = ""
    error_type: str = ""
    text: str = ""
    age: float | None = None

    @property
    def is_everything(self) -> bool:
        return self == Query()

    def wanted(self, now: float, ids: Iterable[str] = ()) -> Searched:
        """`now`: Unix seconds. `ids`: only these."""
        return Searched(
            ids=frozenset(ids) or None,
            error_type=self.error_type or None,
            fingerprint=self.fingerprint or None,
            since=None if self.age is None else now - self.age,
            text=self.text.lower(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched(Wanted):
    """With a text in lower case that stands somewhere in it: in its id, routing key, reason, message or body."""

    text: str = ""

    def matches(self, letter: Letter) -> bool:
        # Not super(): a dataclass with slots is another class than the one that this was written in.
        return Wanted.matches(self, letter) and (not self.text or self._says(letter))

    def _says(self, letter: Letter) -> bool:
        summary = letter.summary
        heads = (summary["id"], summary["routing_key"], summary["reason"], summary["error_message"] or "")
        if any(self.text in head.lower() for head in heads):
            return True
        return len(letter.body) < LARGE and self.text in letter.body.decode(errors="replace").lower()


@dataclass(kw_only=True)
class Shelf:
    """What one look has found."""

    total: int = 0  # in the queue, about
    seen: int = 0
    matching: int = 0
    other_groups: int = 0  # letters of groups beyond MOST_GROUPS
    is_cut: bool = False  # the time was up
    groups: list[Group] = field(default_factory=list)  # largest first
    newest: list[Summary] = field(default_factory=list)  # that match
    error_types: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One in full."""

    detail: Detail
    fingerprint: Fingerprint
    data: str
    headers: Sequence[tuple[str, str]]
    size: int  # bytes of its body


class Unreachable(DomainEventError):
    """This receiver is offline, or there is none of this name."""


class Letters:
    """Blocks: for a thread."""

    def __init__(self, registrations: Iterable[Registration], clock: Callable[[], float] = time.monotonic) -> None:
        self._registrations: Mapping[str, Registration] = {each.name: each for each in registrations}
        self._clock = clock

    def open(self, receiver: str, *, lock_patience: float = _LOCK_PATIENCE) -> DeadLetterQueue:
        """To be entered with `with`. Raises Unreachable."""
        registration = self._registrations.get(receiver)
        if registration is None or not registration.dead_letter:
            raise Unreachable(f"there is no receiver {receiver!r} with dead letters here")
        brokers = configured_brokers(registration.connection_settings, "consumer")
        if brokers is None:
            raise Unreachable(f"receiver {receiver!r} is offline: it has no broker")
        return DeadLetterQueue(brokers, receiver, lock_patience=lock_patience)

    def look(self, receiver: str, query: Query) -> Shelf:
        """Raises BrokerError, Unreachable."""
        wanted = query.wanted(time.time())
        of_any_cause = replace(query, fingerprint="").wanted(time.time())
        until = self._clock() + LOOKING
        shelf = Shelf()
        groups = Groups(MOST_GROUPS)
        types: dict[str, None] = {}
        newest: list[tuple[float, int, Summary]] = []  # a heap: the oldest first
        numbers = itertools.count()
        with self.open(receiver) as queue:
            shelf.total = queue.count
            for page in queue.pages():
                for letter in page:
                    shelf.seen += 1
                    if letter.error_type is not None and len(types) < MOST_GROUPS:
                        types[one_line(letter.error_type, 200)] = None
                    if not of_any_cause.matches(letter):
                        continue
                    groups.add(letter)
                    if wanted.fingerprint is None or letter.fingerprint.key == wanted.fingerprint:
                        shelf.matching += 1
                        entry = (letter.dead_at or 0.0, next(numbers), letter.summary)
                        (heapq.heappush if len(newest) < MOST_SHOWN else heapq.heappushpop)(newest, entry)
                if self._clock() >= until and shelf.seen < queue.count:
                    shelf.is_cut = True
                    break
        shelf.groups, shelf.other_groups = groups.largest_first, groups.others
        shelf.newest = [summary for _, _, summary in sorted(newest, key=lambda each: each[:2], reverse=True)]
        shelf.error_types = sorted(types)
        return shelf

    def show(self, receiver: str, letter_id: str) -> Shown | None:
        """None: it is not there any more, or was not found in time. Raises BrokerError, Unreachable."""
        until = self._clock() + LOOKING
        with self.open(receiver) as queue:
            for page in queue.pages():
                for letter in page:
                    if letter.id == letter_id:
                        return _shown(letter)
                if self._clock() >= until:
                    break
        return None


def _shown(letter: Letter) -> Shown:
    detail = letter.detail
    data = detail["data"]
    text = data if isinstance(data, str) and letter.event is None else json.dumps(data, indent=2, ensure_ascii=False)
    headers: Mapping[str, Any] = letter.properties.headers or {}
    return Shown(
        detail=detail,
        fingerprint=letter.fingerprint,
        data=cut(text, _LONGEST_DATA),
        headers=[
            (one_line(str(name), 200), cut(str(value), _LONGEST_HEADER))
            for name, value in sorted(headers.items(), key=lambda each: str(each[0]))
            if value != detail["traceback"]
        ],
        size=len(letter.body),
    )


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}\n… and {len(text) - longest} characters more"
