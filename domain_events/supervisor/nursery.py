"""Where children come from: pipes, a log line, the fork; and what of the master a child has to let go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Protocol

from domain_events.supervisor.child import Child, Consume, Place
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.process import Process
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.spawn import Mask, spawn


class Closable(Protocol):
    def close(self) -> object: ...


class Nursery:
    """One for each master."""

    def __init__(
        self,
        *,
        consume: Consume,
        boot: Callable[[], None],
        orphan_patience: float,
        master_only: Sequence[Closable],
    ) -> None:
        """`master_only` is closed in each child: through the objects, for if only the descriptors were closed,
        an object could later close another file that got its number."""
        self._consume = consume
        self._boot = boot
        self._orphan_patience = orphan_patience
        self._master_only = master_only
        self._master = os.getpid()
        # Nobody writes. A child reads, and the end of the file is the end of the master, however it came.
        self._lifeline, self._lifeline_end = os.pipe()

    def fork(self, seat: Seat, siblings: Iterable[Process]) -> Process:
        """A new child for the seat. Raises OSError when a process or a descriptor is not to be had."""
        seat.record.end()
        with ExitStack() as undo:
            status, status_end = os.pipe()
            undo.callback(os.close, status)
            undo.callback(os.close, status_end)
            log = LogLine(seat.slot.name)
            undo.callback(log.discard)
            place = Place(
                registration=seat.registration,
                slot=seat.slot.name,
                status_fd=status_end,
                lifeline_fd=self._lifeline,
                record=seat.record,
                log=log,
                master=self._master,
                orphan_patience=self._orphan_patience,
                boot=self._boot,
                consume=self._consume,
            )

            def main(mask: Mask) -> int:
                return Child(place).run(mask)

            def abandon() -> None:
                os.close(status)
                os.close(self._lifeline_end)
                for sibling in siblings:
                    sibling.close_descriptors()
                for thing in self._master_only:
                    thing.close()

            pid = spawn(main, abandon)
            undo.pop_all()
        os.close(status_end)
        log.in_master()
        return Process(pid, status, log)

    def close(self) -> None:
        """Every child that is left takes itself for an orphan."""
        os.close(self._lifeline)
        os.close(self._lifeline_end)
