"""Where children come from: pipes, a log line, shared memory, and a fork here or in a loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from domain_events.lifecycle import run_before_fork
from domain_events.registration import Registration
from domain_events.supervisor.child import Child, Consume, Place
from domain_events.supervisor.counting import Sums
from domain_events.supervisor.http_process import HttpPlace, HttpProcess, HttpService
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.posts import HttpOrders, Orders, Post
from domain_events.supervisor.process import Process
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.spawn import Mask, spawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A child's ends of what it shares with its master, before the fork."""

    status: int
    stacks: int
    lifeline: int  # ends when the master does
    log: LogLine
    arena: Arena
    given: tuple[int, ...] = ()  # what only this child gets


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A process that does one thing and ends."""

    pid: int
    answers: int  # a pipe: what it has to say; at the end of it the process ends, or has ended


class Source(Protocol):
    """Where the code of receivers is imported, and children of it can be made."""

    @property
    def posts(self) -> Sequence[Post]:
        """What there is to run."""

    def fork(self, orders: Orders | HttpOrders, ends: Ends, abandon: Callable[[], None]) -> int:
        """The pid of a new child of this process. Raises OSError, or HookFailed of a before_fork hook.

        `abandon` closes what the child inherits from the master and must let go; for a fork of the master itself.
        """

    def close(self) -> None: ...


class OwnCode:
    """The code that the master itself has imported."""

    def __init__(
        self,
        registrations: Sequence[Registration],
        posts: Sequence[Post],
        consume: Consume,
        boot: Callable[[], None],
        http: HttpService | None = None,
    ) -> None:
        self.posts = posts
        self._http = http
        self._registrations: Mapping[str, Registration] = {found.name: found for found in registrations}
        self._consume = consume
        self._boot = boot

    def fork(self, orders: Orders | HttpOrders, ends: Ends, abandon: Callable[[], None]) -> int:
        run_before_fork()
        return spawn(self._child(orders, ends), abandon)

    def _child(self, orders: Orders | HttpOrders, ends: Ends) -> Callable[[Mask], int]:
        if isinstance(orders, HttpOrders):
            assert self._http is not None
            http_place = HttpPlace(
                registrations=tuple(self._registrations.values()),
                orders=orders,
                status_fd=ends.status,
                stacks_fd=ends.stacks,
                log=ends.log,
                given=ends.given,
                let_go=(ends.lifeline, ends.arena.fd),
                service=self._http,
            )
            return lambda mask: HttpProcess(http_place).run(mask)
        place = Place(
            registration=self._registrations[orders.receiver],
            orders=orders,
            status_fd=ends.status,
            stacks_fd=ends.stacks,
            lifeline_fd=ends.lifeline,
            log=ends.log,
            arena=ends.arena,
            boot=self._boot,
            consume=self._consume,
        )

        return lambda mask: Child(place).run(mask)

    def close(self) -> None:
        """It ends with the master."""


class Nursery:
    """One for each master."""

    def __init__(self, arena: Arena, log_records_dropped: Sums, let_go: Sequence[Callable[[], object]]) -> None:
        """`log_records_dropped`: by slot, added up by threads. `let_go` is called in each child, to close what belongs
        to the master: through the objects, for if only the descriptors were closed, an object could later close
        another file that got its number."""
        self.master = os.getpid()
        self._arena = arena
        self._log_records_dropped = log_records_dropped
        self._let_go = let_go
        # Nobody writes. A child reads, and the end of the file is the end of the master, however it came.
        self._lifeline, self._lifeline_end = os.pipe()

    def fork(
        self, source: Source, orders: Orders | HttpOrders, siblings: Iterable[Process], given: tuple[int, ...] = ()
    ) -> Process:
        """A new child. `given`: descriptors for it, which stay the caller's here.

        Raises OSError when a process or a descriptor is not to be had, or HookFailed.
        """
        with ExitStack() as undo:
            status, status_end = self._pipe(undo)
            stacks, stacks_end = self._pipe(undo)
            log = LogLine(orders.slot, on_dropped=partial(self._log_records_dropped.add, orders.slot))
            undo.callback(log.discard)
            ends = Ends(
                status=status_end, stacks=stacks_end, lifeline=self._lifeline, log=log, arena=self._arena, given=given
            )

            def abandon() -> None:
                os.close(status)
                os.close(stacks)
                self._abandon(siblings)

            pid = source.fork(orders, ends, abandon)
            undo.pop_all()
        os.close(status_end)
        os.close(stacks_end)
        log.in_master()
        return Process(pid, status, stacks, log)

    def send_out(self, main: Callable[[int, Mask], int], siblings: Iterable[Process]) -> Errand:
        """A process that calls `main` with the pipe to write to. Raises OSError, or HookFailed of a before_fork hook.

        Nobody watches over it: it is reaped as what handlers leave behind.
        """
        with ExitStack() as undo:
            answers, answers_end = self._pipe(undo)

            def abandon() -> None:
                os.close(answers)
                self._abandon(siblings)

            run_before_fork()
            pid = spawn(partial(main, answers_end), abandon)
            undo.pop_all()
        os.close(answers_end)
        return Errand(pid=pid, answers=answers)

    def close(self) -> None:
        """Every child that is left takes itself for an orphan."""
        os.close(self._lifeline)
        os.close(self._lifeline_end)

    def _abandon(self, siblings: Iterable[Process]) -> None:
        os.close(self._lifeline_end)
        for sibling in siblings:
            sibling.close_descriptors()
        for close in self._let_go:
            close()

    @staticmethod
    def _pipe(undo: ExitStack) -> tuple[int, int]:
        reader, writer = os.pipe()
        undo.callback(os.close, reader)
        undo.callback(os.close, writer)
        return reader, writer
