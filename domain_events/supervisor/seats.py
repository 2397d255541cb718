"""A slot together with what occupies it: the receiver, the shared notes, and the process of now."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from domain_events.supervisor import lines
from domain_events.supervisor.notes import InHand, Record
from domain_events.supervisor.nursery import Source
from domain_events.supervisor.posts import Post
from domain_events.supervisor.process import Process
from domain_events.supervisor.shm import Region
from domain_events.supervisor.slots import Action, Slot
from domain_events.supervisor.tallies import Counters
from domain_events.supervisor.wear import resident_memory

logger = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Stacks that a child has written. `at`: Unix seconds."""

    pid: int
    at: float
    text: str


@dataclass(slots=True, kw_only=True, eq=False)
class Seat:
    """The one thing of a slot that changes in place."""

    slot: Slot
    post: Post
    source: Source  # of its code
    region: Region
    record: Record
    process: Process | None = None
    earlier: Counters = field(default_factory=Counters)  # of the seat that this one has replaced
    is_candidate: bool = False  # has yet to show that it can take over from another
    is_leaving: bool = False  # will not be filled again
    replaced_for: str = ""  # the cause why another takes its place
    culprits: tuple[str, ...] = ()  # ids of the events because of which its child was found to hang
    had_alert: bool = False  # its last child died with an alert in hand
    look_at: float | None = None  # when to look again whether it hangs
    heir: Seat | None = None  # who goes on in its place
    final: Counters | None = None  # what it has counted, once it is removed
    dump: Dump | None = None  # what its children have last said of their stacks
    worn: str = ""  # why its child should be replaced
    recycle_at: float = 0.0  # not before

    def inherit(self, old: Seat) -> None:
        """Go on as `old`, which leaves or has left: what it counts until its end is counted here."""
        old.heir = self
        self.dump = self.dump or old.dump
        self.slot = replace(self.slot, restarts=self.slot.restarts + old.slot.restarts)
        if old.final is not None:
            self.bury(old)

    def bury(self, old: Seat) -> None:
        """Take over what it leaves behind, at its end."""
        self.earlier += old.counters if old.final is None else old.final
        if self.slot.last_exit is None:
            self.slot = replace(self.slot, last_exit=old.slot.last_exit)

    @property
    def stays(self) -> bool:
        """Whether it is one of those that there should be: it neither leaves nor is on trial."""
        return not (self.is_leaving or self.is_candidate)

    @property
    def counters(self) -> Counters:
        return self.earlier + self.record.counters

    @property
    def started_at(self) -> float | None:
        """Of the process of now, on the monotonic clock."""
        return None if self.process is None else self.process.started_at

    @property
    def in_flight(self) -> str | None:
        """The id of the event that is longest in hand."""
        in_hand = self.in_hand
        return in_hand[0].id if in_hand else None

    @property
    def in_hand(self) -> Sequence[InHand]:
        """Oldest first; none without a process."""
        return self.record.in_hand if self.process is not None else ()

    @property
    def rss(self) -> int | None:
        """Bytes; None without a process."""
        return None if self.process is None else resident_memory(self.process.pid)

    def carry_out(self, actions: Iterable[Action]) -> None:
        """What the state table has decided."""
        for action in actions:
            if self.process is None:
                return
            match action:
                case Action.TERMINATE:
                    self.process.send(signal.SIGTERM)
                case Action.DUMP:
                    logger.warning("%s takes too long; its stacks follow", self.slot.name)
                    self.process.send(signal.SIGUSR2)
                case Action.QUIT:
                    self.log_stacks()
                    logger.warning("%s is told to leave now", self.slot.name)
                    self.process.send(signal.SIGQUIT)
                case Action.KILL:
                    self.log_stacks()
                    logger.warning("%s is killed", self.slot.name)
                    self.process.send(signal.SIGKILL)
            self.process.wake()

    def log_stacks(self) -> None:
        """Those that its child has written since the last time."""
        if self.process is not None:
            self.process.stacks.read(time.monotonic())
            text = self.process.stacks.take()
            if text:
                self.dump = Dump(pid=self.process.pid, at=time.time(), text=text)
                logger.warning("stacks of %s (pid %d):\n%s", self.slot.name, self.process.pid, text)

    def log_line(self, level: int, event: str, pid: int | None = None, **fields: lines.Value) -> None:
        """One of the supervisor's lines about this slot."""
        pid = self.slot.pid if pid is None else pid
        lines.write(logger, level, event, receiver=self.slot.receiver, slot=self.slot.name, pid=pid, **fields)


def end_all(seats: Iterable[Seat], grace: float) -> None:
    """Without a loop and a state table: for when one of them has failed. SIGTERM, wait, SIGKILL."""
    living = [seat.process for seat in seats if seat.process]
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        for process in living:
            process.send(number)
            process.wake()
        deadline = time.monotonic() + patience
        while living and time.monotonic() < deadline:
            living = [process for process in living if process.ending() is None]
            time.sleep(0.05)
