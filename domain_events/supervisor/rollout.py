"""One child after the other is replaced by a new one: the new one consumes before the old one is told to leave.

For a reload, a restart on request, and the recycling of worn children. Where a new child cannot do what the old one
did, everything goes back to how it was.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from domain_events.supervisor.causes import Cause
from domain_events.supervisor.crew import Crew
from domain_events.supervisor.nursery import Source
from domain_events.supervisor.posts import Post
from domain_events.supervisor.seats import Seat
from domain_events.supervisor.slots import State

logger = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    seat: Seat
    post: Post
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    post: Post
    index: int
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    seat: Seat


Step: TypeAlias = Replace | Add | Remove


@dataclass(frozen=True, slots=True)
class Result:
    """`problem`: why it was taken back; empty when all is well."""

    problem: str = ""


class Rollout:
    """Steps, taken one by one; `advance` whenever something may have changed."""

    def __init__(
        self,
        steps: Iterable[Step],
        crew: Crew,
        *,
        cause: Cause,
        retire: Callable[[Seat, float], None],
        patience: float,
    ) -> None:
        """`cause`: why children are replaced. `retire` tells the child of a seat to drain. `patience`: seconds that a
        new child has until it consumes."""
        self._steps = deque(steps)
        self._crew = crew
        self._cause = cause
        self._retire = retire
        self._patience = patience
        self._current: Step | None = None
        self._new: Seat | None = None
        self._deadline = 0.0
        self._taken: list[tuple[Step, Seat | None]] = []  # what can be undone
        self._left: list[Seat] = []
        self._problem = ""

    def advance(self, now: float) -> Result | None:
        """None: it is not over yet."""
        while self._current is not None or self._steps:
            if self._current is None:
                self._current = self._steps.popleft()
                self._new = None
                self._deadline = now + self._patience
                self._begin(self._current, now)
            if self._has_come_true(self._current, now):
                self._taken.append((self._current, self._new))
                self._current = None
            elif self._current is not None:
                return None
        if any(seat in self._crew.seats for seat in self._left):
            return None
        return Result(self._problem)

    @property
    def due(self) -> float | None:
        return None if self._current is None else self._deadline

    def _begin(self, step: Step, now: float) -> None:
        match step:
            case Replace(seat=old):
                if old.slot.state is not State.CONSUMING or step.post.single_active:
                    # Nothing to wait for; or the new one would get nothing while the old one is there.
                    self._replace(old, now)
                if not step.post.single_active:
                    self._try(step, now)
            case Add(post=post, index=index, source=source):
                self._new = self._crew.add(post, index, source, now)
                self._new.is_candidate = True
            case Remove(seat=old):
                self._leave(old, now)

    def _try(self, step: Replace, now: float) -> None:
        old = step.seat
        self._new = self._crew.add(step.post, old.slot.index, step.source, now, heir_of=old)

    def _has_come_true(self, step: Step, now: float) -> bool:
        """Whether to take the next one."""
        old = step.seat if isinstance(step, Replace) else None
        if self._new is None:
            if old is None:
                return True
            if old in self._crew.seats:
                return False
            assert isinstance(step, Replace)
            self._try(step, now)
            self._deadline = now + self._patience
            return False
        slot = self._new.slot
        if slot.state is State.CONSUMING:
            self._take_over(old, now)
            return True
        is_needed = old is not None and not old.is_leaving and old.slot.state is State.CONSUMING
        if slot.state is State.WAITING and not is_needed:  # the broker is away for all of us
            self._take_over(old, now)
            return True
        if slot.failures or now >= self._deadline:
            reason = slot.reason if slot.failures else f"{slot.reason or 'not consuming'} after {self._patience:g} s"
            return self._has_failed(f"{slot.name}: {reason}", old, now)
        return False

    def _take_over(self, old: Seat | None, now: float) -> None:
        assert self._new is not None
        self._new.is_candidate = False
        if old is not None:
            self._new.inherit(old)
            if not old.is_leaving:
                self._replace(old, now)

    def _has_failed(self, problem: str, old: Seat | None, now: float) -> bool:
        assert self._new is not None
        if old is not None and old.is_leaving:
            # There is no way back to a child that has left already. It did not work either, or it had to go first.
            self._new.is_candidate = False
            if not self._problem and isinstance(self._current, Replace) and self._current.post.single_active:
                self._taken.append((self._current, self._new))
                self._take_back(problem)
                return False
            logger.warning("%s does not work with the new child either", problem)
            return True
        if self._problem:  # on the way back already
            self._new.is_candidate = False
            self._take_over(old, now)
            return True
        self._leave(self._new, now)
        self._take_back(problem)
        return False

    def _take_back(self, problem: str) -> None:
        self._problem = problem
        self._current = None
        self._new = None
        self._steps.clear()
        for step, new in reversed(self._taken):
            match step:
                case Replace(seat=old) if new is not None:
                    self._steps.append(Replace(seat=new, post=old.post, source=old.source))
                case Add() if new is not None:
                    self._steps.append(Remove(seat=new))
        self._taken.clear()

    def _replace(self, old: Seat, now: float) -> None:
        old.replaced_for = self._cause
        self._leave(old, now)

    def _leave(self, seat: Seat, now: float) -> None:
        self._left.append(seat)
        self._retire(seat, now)
        self._crew.sweep()  # who had no process any more has left already, and nobody would tell us
