"""A slot, the place of one child: its states, and what can happen to it.

Pure values; times are seconds of a monotonic clock. A slot lives longer than its children. What an event
makes of it stands in `transitions`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from domain_events.supervisor.exits import Ending
from domain_events.supervisor.restarts import Backoff


class State(enum.StrEnum):
    PENDING = "pending"  # no child yet; forked as soon as the spawn rate lets it
    STARTING = "starting"  # forked: booting, or booted and connecting for the first time
    WAITING = "waiting"  # booted, but the broker is away
    CONSUMING = "consuming"
    BACKOFF = "backoff"  # no child; waits before the next start
    FAILED = "failed"  # as BACKOFF, at the longest delay: a person should look
    DRAINING = "draining"  # told to leave
    STOPPED = "stopped"

    @property
    def shown(self) -> str:
        """As the state is called for people and in JSON: what does not consume yet is starting."""
        return "starting" if self in (State.PENDING, State.WAITING) else self.value


RESTING = frozenset({State.PENDING, State.BACKOFF, State.FAILED})
"""The states without a child in which one may be forked."""

RUNNING = frozenset({State.STARTING, State.WAITING, State.CONSUMING})
"""The states of a child that nobody has told to leave."""


class Action(enum.Enum):
    """What the master has to do to the child."""

    TERMINATE = "terminate"  # ask it to drain
    DUMP = "dump"  # let it write the stacks of all its threads
    QUIT = "quit"  # end it now, from its own I/O thread
    KILL = "kill"


DUMP_TIME = 0.2
"""Seconds between the order to dump and the end: the dump is written while the child still lives."""

Ladder: TypeAlias = tuple[tuple[float, Action], ...]
"""What is done to a child that does not move, and when, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The flags that decide about children. Durations in seconds."""

    grace: float = 30.0
    kill_after: float = 5.0
    backoff: Backoff = field(default_factory=Backoff)
    stable_after: float = 30.0
    boot_timeout: float = 60.0

    def ladder(self, start: float) -> Ladder:
        """The way from patience to force; it begins at `start` and ends `kill_after` later."""
        gap = min(DUMP_TIME, self.kill_after)
        return ((start, Action.DUMP), (start + gap, Action.QUIT), (start + self.kill_after, Action.KILL))

    def gentle_ladder(self, start: float) -> Ladder:
        """For a child in which one of several events hangs: the others have `kill_after` to be finished."""
        quit_at = start + self.kill_after
        kill_at = quit_at + self.kill_after
        return ((start, Action.DUMP), (start, Action.TERMINATE), (quit_at, Action.QUIT), (kill_at, Action.KILL))


@dataclass(frozen=True, slots=True, kw_only=True)
class LastExit:
    """How the last child of a slot ended. `at`: Unix seconds; `in_flight`: the id of an event it had in hand."""

    ending: Ending
    at: float
    in_flight: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    receiver: str
    index: int  # 0 is the first process of the receiver
    state: State = State.PENDING
    pid: int | None = None
    since: float = 0.0  # when the state began
    due: float = 0.0  # when the next child may be forked, in a state of RESTING
    ladder: Ladder = ()
    pushed: bool = False  # this child was told to QUIT or KILL because it took too long
    hung: str = ""  # why this child was found to hang, as `timeout 2.0s`
    booted: bool = False  # this child
    booted_once: bool = False  # any child of this slot
    consuming_since: float | None = None
    consumed: float = 0.0  # seconds of consuming of this child, before `consuming_since`
    failures: int = 0  # crashes and boot failures in a row, without a stable run in between
    failing_since: float | None = None
    restarts: int = 0  # crashes and boot failures, ever
    reason: str = ""  # why it does not consume, for people
    last_exit: LastExit | None = None
    cut: bool = False  # something did not end by itself in the drain

    @property
    def name(self) -> str:
        return f"{self.receiver}#{self.index}"


@dataclass(frozen=True, slots=True)
class Forked:
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    reason: str
    spread: float  # a random number in 0..1, for the back-off


@dataclass(frozen=True, slots=True)
class Booted:
    """Hooks have run, the consumer's loop begins."""


@dataclass(frozen=True, slots=True)
class Consuming:
    """The broker has taken the subscription."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The broker is away; the child tries to come back by itself."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """A handler takes longer than its receiver allows, or the child gives no sign of life."""

    cause: str  # as `timeout 2.0s`
    gently: bool = False  # other events are in hand that do not hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    exit: LastExit
    spread: float  # a random number in 0..1, for the back-off


@dataclass(frozen=True, slots=True)
class MasterSlept:
    """The master itself was stopped for so many seconds: no deadline ran meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The clock may have reached a step of the ladder."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Drain, by the deadline."""


@dataclass(frozen=True, slots=True)
class ForceAsked:
    """Leave now, whatever is in hand."""


Event: TypeAlias = (
    Forked
    | ForkFailed
    | Booted
    | Consuming
    | Waiting
    | Hung
    | Exited
    | MasterSlept
    | TimePassed
    | StopAsked
    | ForceAsked
)


def is_stable(slot: Slot, now: float, rules: Rules) -> bool:
    """Whether this child has consumed for so long that its start was a good one."""
    if slot.consuming_since is None:
        return slot.consumed > 0 and slot.consumed >= rules.stable_after
    return slot.consumed + now - slot.consuming_since >= rules.stable_after


def give_up_at(slots: tuple[Slot, ...], give_up_after: float) -> float | None:
    """When all receivers will have failed for `give_up_after` seconds; None while one of them may work.

    Only crashes and boot failures count: a child that waits for its broker does not fail.
    """
    since = []
    for slot in slots:
        booting = slot.state in RESTING or (slot.state is State.STARTING and not slot.booted)
        if not booting or slot.failing_since is None:
            return None
        since.append(slot.failing_since)
    return max(since) + give_up_after if since and give_up_after else None
