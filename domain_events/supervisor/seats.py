"""A slot together with what occupies it: the registration, the shared record, and the process of now."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from domain_events.registration import Registration
from domain_events.supervisor import lines
from domain_events.supervisor.process import Process
from domain_events.supervisor.shm import Record
from domain_events.supervisor.slots import Action, Slot

logger = logging.getLogger(__package__)


@dataclass(slots=True, kw_only=True)
class Seat:
    """The one thing of a slot that changes in place."""

    slot: Slot
    registration: Registration
    record: Record = field(default_factory=Record)
    process: Process | None = None

    def carry_out(self, actions: Iterable[Action]) -> None:
        """What the state table has decided."""
        for action in actions:
            if self.process is None:
                return
            match action:
                case Action.TERMINATE:
                    self.process.send(signal.SIGTERM)
                case Action.DUMP:
                    logger.warning("%s takes too long; its stacks follow on stderr", self.slot.name)
                    self.process.send(signal.SIGUSR2)
                case Action.QUIT:
                    logger.warning("%s is told to leave now", self.slot.name)
                    self.process.send(signal.SIGQUIT)
                case Action.KILL:
                    logger.warning("%s is killed", self.slot.name)
                    self.process.send(signal.SIGKILL)
            self.process.wake()

    def log_line(self, level: int, event: str, pid: int | None = None, **fields: lines.Value) -> None:
        """One of the supervisor's lines about this slot."""
        pid = self.slot.pid if pid is None else pid
        lines.write(logger, level, event, receiver=self.slot.receiver, slot=self.slot.name, pid=pid, **fields)


def seats_for(registrations: Sequence[Registration], now: float) -> list[Seat]:
    """One for each process of each receiver, in order."""
    return [
        Seat(slot=Slot(receiver=registration.name, index=index, due=now, since=now), registration=registration)
        for registration in registrations
        for index in range(registration.processes)
    ]


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
