"""All seats of a master, and the memory that they share with their children."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from domain_events.supervisor.blame import SIZE as BLAME_SIZE
from domain_events.supervisor.blame import Blame
from domain_events.supervisor.limits import allow_children
from domain_events.supervisor.notes import Record, record_size
from domain_events.supervisor.nursery import Source
from domain_events.supervisor.posts import Post
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.shm import Arena, Region
from domain_events.supervisor.slots import Slot, State
from domain_events.supervisor.tallies import Counters


@dataclass(slots=True)
class Past:
    """What stays of a receiver when its seats go."""

    counters: Counters = field(default_factory=Counters)  # of the children in them
    restarts: Counter[str] = field(default_factory=Counter)  # by cause


MOST_DELAYS = 100
"""That are remembered for one receiver."""


class Crew:
    """Seats come and go; the order is that of the receivers."""

    def __init__(self, arena: Arena) -> None:
        self.seats: list[Seat] = []
        self.receivers: list[str] = []  # in order, also those without a seat
        self.past: defaultdict[str, Past] = defaultdict(Past)  # by receiver
        self._arena = arena
        self.delays: dict[str, dict[int, None]] = {}  # of retries, newest last: milliseconds
        self._blame: dict[str, Region] = {}

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(seat.slot for seat in self.seats)

    @property
    def shown(self) -> tuple[Slot, ...]:
        """One for each process that there should be: without those that leave, and those on trial."""
        return tuple(seat.slot for seat in self.seats if seat.stays)

    def staying(self, receiver: str) -> list[Seat]:
        """The seats of a receiver that are neither leaving nor on trial, by index."""
        found = [seat for seat in self.seats if seat.slot.receiver == receiver and seat.stays]
        return sorted(found, key=lambda seat: seat.slot.index)

    def add(self, post: Post, index: int, source: Source, now: float, heir_of: Seat | None = None) -> Seat:
        """A new seat, to be filled now. `heir_of`: the seat that it may replace, and whose counts it carries on."""
        allow_children(len(self.seats) + 1)
        region = self._arena.allocate(record_size(post.concurrency))
        slot = Slot(receiver=post.receiver, index=index, due=now, since=now)
        record = Record(self._arena.view(region), post.concurrency)
        # Whatever types of errors come, there are no more of them than all that live at a time have places for.
        record.tally.know(dict.fromkeys(self._error_types(post.receiver)))
        seat = Seat(slot=slot, post=post, source=source, region=region, record=record)
        at = len(self.seats)
        if heir_of is not None:
            seat.is_candidate = True
            at = self.seats.index(heir_of) + 1 if heir_of in self.seats else at
        else:
            same = [number for number, other in enumerate(self.seats) if other.slot.receiver == post.receiver]
            at = same[-1] + 1 if same else at
        self.seats.insert(at, seat)
        if post.receiver not in self.receivers:
            self.receivers.append(post.receiver)
        return seat

    def remove(self, seat: Seat) -> None:
        """It has no process any more."""
        self.seats.remove(seat)
        seat.final = seat.counters  # its memory is somebody else's from now on
        self.past[seat.slot.receiver].counters += seat.record.counters
        if seat.heir is not None:
            seat.heir.bury(seat)
        self._arena.free(seat.region)

    def _error_types(self, receiver: str) -> Iterator[str]:
        """Those that are counted by name."""
        yield from self.past[receiver].counters.failed
        for seat in self.seats:
            if seat.slot.receiver == receiver:
                yield from seat.record.counters.failed

    def sweep(self) -> None:
        """Remove the seats that were to be left, and are."""
        for seat in [seat for seat in self.seats if seat.is_leaving and seat.slot.state is State.STOPPED]:
            if seat.process is None:
                self.remove(seat)

    def order(self, receivers: Sequence[str]) -> None:
        """These, in this order, are the receivers of now."""
        self.receivers = list(receivers)
        rank = {name: number for number, name in enumerate(receivers)}
        self.seats.sort(key=lambda seat: rank.get(seat.slot.receiver, len(rank)))  # stable

    def note_delay(self, receiver: str, delay: int) -> None:
        """A retry of this receiver has waited, or waits, so many milliseconds."""
        delays = self.delays.setdefault(receiver, {})
        delays.pop(delay, None)
        delays[delay] = None
        while len(delays) > MOST_DELAYS:
            del delays[next(iter(delays))]

    def blame_region(self, receiver: str) -> Region:
        if receiver not in self._blame:
            self._blame[receiver] = self._arena.allocate(BLAME_SIZE)
        return self._blame[receiver]

    def blame(self, receiver: str) -> Blame:
        return Blame(self._arena.view(self.blame_region(receiver)))
