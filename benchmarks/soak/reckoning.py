"""The ledger: what was sent, against what was handled, set aside and left. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONFIRMED, UNKNOWN, NOT_SENT = "confirmed", "unknown", "not-sent"


@dataclass(slots=True, kw_only=True)
class Sent:
    """An event that a sender was about to send."""

    name: str
    topic: str
    sender: str
    began: float
    timeout: float
    outcome: str = UNKNOWN
    """Until its sender says more: it may have been killed."""
    ended: float | None = None
    error: str = "-"

    @property
    def seconds(self) -> float | None:
        """How long the call took."""
        return None if self.ended is None else self.ended - self.began


@dataclass(frozen=True, slots=True)
class Note:
    """What a handler wrote at its end."""

    at: float
    name: str
    topic: str


@dataclass(slots=True, kw_only=True)
class Account:
    """Of one receiver."""

    receiver: str
    expected: int
    """Confirmed events that it listens to."""
    handled: int
    duplicates: int
    """How often a handler came to its end for an event that it had handled already."""
    dead: int
    dead_again: int
    """Events that were handled and set aside, or set aside twice."""
    left: int
    """Still in the queues when the soak ended."""
    lost: list[Sent]
    unknown: int
    """Neither confirmed nor refused, or their sender was killed."""
    unknown_arrived: list[str]
    not_sent: int
    """The sender said: not sent."""
    ghosts: list[str]
    """Of these the ones that have arrived all the same."""
    strangers: list[str]
    """What nobody has sent to this receiver."""


def read_sent(lines: Iterable[tuple[str, Sequence[str]]]) -> dict[str, Sent]:
    """From the journals of the senders."""
    sent: dict[str, Sent] = {}
    for file, words in lines:
        match words:
            case [at, "about", name, topic, timeout]:
                sent[name] = Sent(
                    name=name, topic=topic, sender=file.removeprefix("sent."), began=float(at), timeout=float(timeout)
                )
            case [at, outcome, name, error]:
                each = sent[name]
                each.outcome, each.ended, each.error = outcome, float(at), error
            case _:
                raise ValueError(f"{file}: {' '.join(words)}")
    return sent


def read_notes(lines: Iterable[tuple[str, Sequence[str]]]) -> dict[str, list[Note]]:
    """By receiver."""
    notes: dict[str, list[Note]] = {}
    for file, (at, name, key) in lines:
        notes.setdefault(file.removeprefix("handled."), []).append(Note(float(at), name, key.removeprefix("soak.")))
    return notes


def reckon(
    receiver: str,
    topics: Sequence[str],
    sent: Mapping[str, Sent],
    notes: Sequence[Note],
    dead: Sequence[str],
    left: Sequence[str],
) -> Account:
    """`dead` and `left`: the ids in its queues at the end."""
    mine = {name: each for name, each in sent.items() if each.topic in topics}
    handled, aside = Counter(note.name for note in notes), Counter(dead)
    arrived = handled.keys() | aside.keys() | set(left)
    of_outcome = {
        outcome: {name for name, each in mine.items() if each.outcome == outcome}
        for outcome in (CONFIRMED, UNKNOWN, NOT_SENT)
    }
    return Account(
        receiver=receiver,
        expected=len(of_outcome[CONFIRMED]),
        handled=len(handled),
        duplicates=handled.total() - len(handled),
        dead=len(aside),
        dead_again=aside.total() - len(aside) + len(handled.keys() & aside.keys()),
        left=len(left),
        lost=sorted((mine[name] for name in of_outcome[CONFIRMED] - arrived), key=lambda each: each.began),
        unknown=len(of_outcome[UNKNOWN]),
        unknown_arrived=sorted(of_outcome[UNKNOWN] & arrived),
        not_sent=len(of_outcome[NOT_SENT]),
        ghosts=sorted(of_outcome[NOT_SENT] & arrived),
        strangers=sorted(arrived - mine.keys()),
    )


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    seconds: float
    began: float = field(compare=False)


def gaps(times: Iterable[float], begin: float, end: float) -> list[Gap]:
    """Between two of them, the longest first."""
    points = [begin, *sorted(at for at in times if begin < at < end), end]
    return sorted((Gap(b - a, a) for a, b in itertools.pairwise(points)), reverse=True)
