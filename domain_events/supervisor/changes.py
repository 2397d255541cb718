"""What changes while the master runs: a reload, a restart of one receiver, more or fewer processes, worn children.

One change at a time. New code is imported by a loader meanwhile, so that a reload begins with code that works.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from domain_events.jitter import fraction
from domain_events.supervisor import lines
from domain_events.supervisor.causes import Cause
from domain_events.supervisor.crew import Crew
from domain_events.supervisor.display import Reloading
from domain_events.supervisor.launch import Launch
from domain_events.supervisor.loader import Loader, LoadFailed
from domain_events.supervisor.nursery import Source
from domain_events.supervisor.posts import Post
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.rollout import Add, Remove, Replace, Result, Rollout, Step
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.slots import State

logger = logging.getLogger(__package__)

_IMPORTS = 2
"""How many times as long as to boot a child it may take to import the application again."""

Done = Callable[[str], None]
"""Told how a change has ended: the problem, or an empty text."""


class Changes:
    """Belongs to the master's loop."""

    def __init__(
        self,
        crew: Crew,
        source: Source,
        selector: selectors.BaseSelector,
        launch: Launch,
        *,
        retire: Callable[[Seat, float], None],
        patience: float,
        backoff: Backoff,
    ) -> None:
        """`source`: the code of now; `patience`: seconds that a new child has until it consumes.

        `backoff`: between two tries to replace a loader that has died.
        """
        self.source = source
        self.directories: Sequence[str] = ()
        self._crew = crew
        self._selector = selector
        self._launch = launch
        self._retire = retire
        self._patience = patience
        self._backoff = backoff
        self._replacements = 0  # of a loader, in a row
        self._replaced_at = 0.0
        self._replace_at = 0.0  # not before
        self._scaled: dict[str, int] = {}  # by an operator, until the master ends
        self._loader: Loader | None = None  # while it imports
        self._load_until = 0.0
        self._loaded: Loader | None = None  # until its rollout begins
        self._rollout: Rollout | None = None
        self._on_end: Callable[[Result], None] = lambda result: None
        self._waiters: list[Done] = []  # for the reload of now
        self._next_waiters: list[Done] = []  # for the one after it
        self._restarter: Done | None = None  # who waits for the restart of now
        self._is_wanted_again = False
        self._queue: deque[tuple[Callable[[float], None], Done]] = deque()
        self._old_sources: list[Source] = []
        self._is_rolling_reload = False
        self._reloads = 0
        self._is_over = False

    @property
    def is_reloading(self) -> bool:
        return self._loader is not None or self._loaded is not None or self._is_rolling_reload

    @property
    def reloading(self) -> Reloading:
        """As it is shown."""
        return Reloading(number=self._reloads, progress=self._progress() if self.is_reloading else "")

    def _progress(self) -> str:
        if not self._is_rolling_reload:
            return "the new code is imported"
        shown = [seat for seat in self._crew.seats if seat.stays]
        taken_over = sum(seat.source is self.source for seat in shown)
        return f"{taken_over}/{len(shown)} taken over"

    @property
    def due(self) -> float | None:
        if self._loader is not None:
            return self._load_until
        if self._rollout is not None:
            return self._rollout.due
        return self._replace_at if self._lacks_loader else None

    @property
    def loaders(self) -> Iterator[Loader]:
        for source in (self._loader, self._loaded, self.source, *self._old_sources):
            if isinstance(source, Loader):
                yield source

    def close_descriptors(self) -> None:
        """In a child of the master."""
        for loader in self.loaders:
            loader.close_descriptors()

    # What can be asked for

    def reload(self, done: Done | None = None, why: str | None = None) -> None:
        """Bring in the code as it is now. During a reload: once more after it, for the code may be newer."""
        if self._is_over:
            if done is not None:
                done("the master is stopping")
        elif self.is_reloading:
            self._is_wanted_again = True
            self._next_waiters += [done] if done else []
        else:
            self._waiters += [done] if done else []
            self._begin_reload(why)

    def restart(self, receiver: str, done: Done) -> None:
        """New children for a receiver, with the code of now, when nothing else changes."""

        def begin(now: float) -> None:
            seats = self._crew.staying(receiver)
            steps = [Replace(seat=seat, post=seat.post, source=seat.source) for seat in seats]
            self._restarter = done
            self._roll(steps, ended, Cause.RESTART)

        def ended(result: Result) -> None:
            self._restarter = None
            done(result.problem)

        self._soon(begin, done)

    def scale(self, receiver: str, processes: int, done: Done) -> None:
        """So many processes for a receiver, until the master ends, when nothing else changes."""

        def begin(now: float) -> None:
            post = self._post_of(receiver)
            if post is None:
                done(f"there is no receiver {receiver!r} any more")
                return
            self._scaled[receiver] = processes
            seats = self._crew.staying(receiver)
            for seat in seats[processes:]:
                self._retire(seat, now)
            for index in _free_indices(seats, processes):
                self._crew.add(post, index, self.source, now)
            done("")

        self._soon(begin, done)

    def _soon(self, begin: Callable[[float], None], done: Done) -> None:
        if self._is_over:
            done("the master is stopping")
        else:
            self._queue.append((begin, done))

    def processes_of(self, receiver: str) -> int:
        """How many there should be."""
        post = self._post_of(receiver)
        return self._scaled.get(receiver, 0 if post is None else post.processes)

    @property
    def scalable(self) -> list[str]:
        """The receivers that run, or are registered, with more than one process; without such, all of them."""
        posts = self.source.posts
        several = [post.receiver for post in posts if max(post.processes, self.processes_of(post.receiver)) > 1]
        return several or [post.receiver for post in posts]

    def cancel(self) -> None:
        """The master stops: nothing changes any more."""
        self._is_over = True
        if self._loader is not None:
            self._drop_loader()
        self._rollout = None
        restarter = [self._restarter] if self._restarter is not None else []
        for done in (*restarter, *self._waiters, *self._next_waiters, *(done for _, done in self._queue)):
            done("the master is stopping")
        self._restarter = None
        self._waiters, self._next_waiters = [], []
        self._queue.clear()

    # The loop

    def advance(self, now: float) -> None:
        """To be called in each turn of the loop."""
        if self._is_over:
            return
        if self._loader is not None:
            if now >= self._load_until:
                limit = f"{_IMPORTS * self._patience:g} s ({_IMPORTS} x --boot-timeout)"
                self._has_failed(f"the new code was not imported within {limit}")
            elif self._loader.is_broken:
                self._on_hello()  # what it has started may hold its channel open: then its end is told by nobody else
        while self._rollout is not None or self._begin_next(now):
            result = self._rollout.advance(now) if self._rollout is not None else None
            if result is not None:
                self._rollout = None
                self._on_end(result)
            elif self._rollout is not None:
                return

    def _begin_next(self, now: float) -> bool:
        """Whether there was something to begin; it may be over already."""
        if self._loaded is not None:
            loader, self._loaded = self._loaded, None
            self._begin_takeover(loader)
            return True
        if self._loader is not None:
            return False
        if self._is_wanted_again:
            self._is_wanted_again = False
            self._waiters, self._next_waiters = self._next_waiters, []
            self._begin_reload(None)
            return False
        if self._lacks_loader and now >= self._replace_at:
            self._replace_loader(now)
            return False
        if self._queue:
            begin, _ = self._queue.popleft()
            begin(now)
            return True
        return self._recycle_next(now)

    @property
    def _lacks_loader(self) -> bool:
        """The children of now live on, but no more can be made of their code."""
        return isinstance(self.source, Loader) and self.source.is_broken

    def _replace_loader(self, now: float) -> None:
        """The code may be broken by now, or what killed the loader kills the next one."""
        if now - self._replaced_at > 2 * self._backoff.cap:
            self._replacements = 0
        self._replacements += 1
        self._replaced_at = now
        self._replace_at = now + self._backoff.delay(self._replacements, fraction())
        self._begin_reload("the loader has ended")

    def _recycle_next(self, now: float) -> bool:
        for seat in self._crew.seats:
            if seat.worn and now >= seat.recycle_at and seat.slot.state is State.CONSUMING and seat.stays:
                seat.log_line(logging.INFO, "child_recycle", reason=seat.worn)
                step = Replace(seat=seat, post=seat.post, source=seat.source)
                on_end: Callable[[Result], None] = partial(self._on_recycled, seat, now)
                self._roll([step], on_end, Cause.RECYCLE)
                return True
        return False

    def _on_recycled(self, seat: Seat, now: float, result: Result) -> None:
        if result.problem:
            # It works on, worn as it is.
            seat.recycle_at = now + self._patience
            logger.warning("%s stays, for its successor does not consume: %s", seat.slot.name, result.problem)

    # A reload

    def _begin_reload(self, why: str | None) -> None:
        self._reloads += 1
        try:
            loader = Loader(self._launch)
        except OSError as error:
            self._has_failed(f"no process for it: {error.strerror}")
            return
        lines.write(logger, logging.INFO, "reload_begin", pid=loader.pid, reason=why)
        self._loader = loader
        self._load_until = time.monotonic() + _IMPORTS * self._patience
        self._selector.register(loader.fileno(), selectors.EVENT_READ, self._on_hello)

    def _on_hello(self) -> None:
        loader = self._loader
        assert loader is not None
        try:
            if not loader.hello():
                return
        except LoadFailed as error:
            self._has_failed(str(error))
            return
        self._selector.unregister(loader.fileno())
        self._loader = None
        self._loaded = loader
        self.directories = loader.directories

    def _begin_takeover(self, loader: Loader) -> None:
        before, self.source = self.source, loader
        self._old_sources.append(before)
        names_before = list(self._crew.receivers)
        self._crew.order([post.receiver for post in loader.posts])
        self._is_rolling_reload = True

        def ended(result: Result) -> None:
            self._is_rolling_reload = False
            if result.problem:
                self.source = before
                self._crew.order(names_before)
                self._old_sources = [source for source in self._old_sources if source is not before]  # or it has ended
                self._old_sources.append(loader)
                self._say_failed(f"{result.problem}; everything is as before")
            else:
                lines.write(logger, logging.INFO, "reload_ok", n=len(self._crew.shown))
                self._tell("")
            self._let_unused_go()

        self._roll(list(self._plan(loader)), ended, Cause.RELOAD)

    def _plan(self, source: Source) -> Iterator[Step]:
        """From the seats of now to what the new code registers. What may fail goes first."""
        posts = {post.receiver: post for post in source.posts}
        removed: list[Step] = []
        added: list[Step] = []
        for name in dict.fromkeys([*posts, *(seat.slot.receiver for seat in self._crew.seats)]):
            seats = self._crew.staying(name)
            wanted = self._scaled.get(name, posts[name].processes) if name in posts else 0
            for seat in seats[:wanted]:
                yield Replace(seat=seat, post=posts[name], source=source)
            added += [Add(post=posts[name], index=index, source=source) for index in _free_indices(seats, wanted)]
            removed += [Remove(seat=seat) for seat in seats[wanted:]]
        yield from added
        yield from removed

    def _has_failed(self, problem: str) -> None:
        if self._loader is not None:
            self._drop_loader()
        self._say_failed(problem)

    def _say_failed(self, problem: str) -> None:
        lines.write(logger, logging.ERROR, "reload_failed", reason=problem)
        self._tell(problem)

    def _tell(self, problem: str) -> None:
        waiters, self._waiters = self._waiters, []
        for done in waiters:
            done(problem)

    def _drop_loader(self) -> None:
        assert self._loader is not None
        with suppress(KeyError):
            self._selector.unregister(self._loader.fileno())
        self._loader.close()
        self._old_sources.append(self._loader)
        self._loader = None

    def _let_unused_go(self) -> None:
        used = {id(seat.source) for seat in self._crew.seats} | {id(self.source)}
        for source in [source for source in self._old_sources if id(source) not in used]:
            source.close()

    def reap(self) -> None:
        """Loaders that have ended."""
        for loader in list(self.loaders):
            if loader.has_ended() and loader in self._old_sources:
                self._old_sources.remove(loader)

    def _post_of(self, receiver: str) -> Post | None:
        return next((post for post in self.source.posts if post.receiver == receiver), None)

    def _roll(self, steps: Sequence[Step], on_end: Callable[[Result], None], cause: Cause) -> None:
        self._rollout = Rollout(steps, self._crew, cause=cause, retire=self._retire, patience=self._patience)
        self._on_end = on_end


def _free_indices(seats: Sequence[Seat], wanted: int) -> list[int]:
    """For the processes that are missing."""
    used = {seat.slot.index for seat in seats}
    free = [index for index in range(wanted) if index not in used]
    return free[: max(0, wanted - len(seats))]
