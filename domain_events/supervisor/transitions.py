"""The state table of a slot: state x event -> state and actions.

Pure: no process, no clock, no randomness. `TABLE` at the end says what each event means in each state. What
is not in it changes nothing: a report may always arrive after the state it belonged to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from domain_events.supervisor.exits import ChildExit
from domain_events.supervisor.slots import (
    Action,
    Booted,
    Consuming,
    Event,
    Exited,
    ForceAsked,
    Forked,
    ForkFailed,
    Hung,
    MasterSlept,
    Rules,
    Slot,
    State,
    StopAsked,
    TimePassed,
    Waiting,
    is_stable,
)

Step: TypeAlias = tuple[Slot, tuple[Action, ...]]


def step(slot: Slot, event: Event, now: float, rules: Rules) -> Step:
    """The slot after `event`, and what has to be done to its child, in order."""
    transition = TABLE[slot.state].get(type(event))
    return (slot, ()) if transition is None else transition(slot, event, now, rules)


def _forked(slot: Slot, event: Forked, now: float, rules: Rules) -> Step:
    return replace(
        slot,
        state=State.STARTING,
        since=now,
        pid=event.pid,
        ladder=rules.ladder(now + rules.boot_timeout),
        pushed=False,
        hung="",
        booted=False,
        consuming_since=None,
        consumed=0.0,
        reason="",
    ), ()


def _fork_failed(slot: Slot, event: ForkFailed, now: float, rules: Rules) -> Step:
    return _failed(slot, event.reason, event.spread, now, rules), ()


def _booted(slot: Slot, event: Booted, now: float, rules: Rules) -> Step:
    return replace(slot, booted=True, booted_once=True, ladder=(), reason="connecting"), ()


def _consuming(slot: Slot, event: Consuming, now: float, rules: Rules) -> Step:
    # A child that hangs may reconnect meanwhile: its handler hangs all the same.
    slot = replace(slot, booted=True, booted_once=True, ladder=slot.ladder if slot.hung else ())
    return replace(slot, state=State.CONSUMING, since=now, consuming_since=now, reason=""), ()


def _waiting(slot: Slot, event: Waiting, now: float, rules: Rules) -> Step:
    # An outage of the broker says nothing about the receiver: the clock of giving up starts again after it.
    return replace(_paused(slot, now), state=State.WAITING, failing_since=None, reason=event.reason), ()


def _reason_changed(slot: Slot, event: Waiting, now: float, rules: Rules) -> Step:
    return replace(slot, reason=event.reason), ()


def _crashed(slot: Slot, event: Exited, now: float, rules: Rules) -> Step:
    ending = event.exit.ending
    stable = is_stable(slot, now, rules)
    slot = replace(_paused(slot, now), last_exit=event.exit)
    # With an event in hand it is no word of ours: a handler has ended the process with this number.
    if ending.code == ChildExit.CONFIGURATION and event.exit.in_flight is None:
        return _failed(slot, f"configuration ({ending})", None, now, rules), ()
    if ending.code == ChildExit.RECYCLED and event.exit.in_flight is None:
        return _again(slot, "recycled", now), ()
    if stable:
        slot = replace(slot, failures=0, failing_since=None, restarts=slot.restarts + 1)
        return _again(slot, _why(slot, event, rules), now), ()
    return _failed(slot, _why(slot, event, rules), event.spread, now, rules), ()


def _again(slot: Slot, reason: str, now: float) -> Slot:
    return replace(slot, state=State.PENDING, pid=None, ladder=(), due=now, reason=reason)


def _why(slot: Slot, event: Exited, rules: Rules) -> str:
    ending = event.exit.ending
    if slot.hung:
        return f"{slot.hung} ({ending})"
    if slot.booted:
        return str(ending)
    if slot.pushed:
        return f"not booted within {rules.boot_timeout:g} s ({ending})"
    return f"did not boot ({ending})"


def _failed(slot: Slot, reason: str, spread: float | None, now: float, rules: Rules) -> Slot:
    """After a crash or a failed start. `spread` None: no use in hurrying, the longest delay."""
    failures = slot.failures + 1
    longest = spread is None or rules.backoff.is_at_cap(failures)
    delay = rules.backoff.cap if spread is None else rules.backoff.delay(failures, spread)
    return replace(
        slot,
        state=State.FAILED if longest else State.BACKOFF,
        since=now,
        pid=None,
        ladder=(),
        due=now + delay,
        failures=failures,
        failing_since=now if slot.failing_since is None else slot.failing_since,
        restarts=slot.restarts + 1,
        reason=reason,
    )


def _hung(slot: Slot, event: Hung, now: float, rules: Rules) -> Step:
    if slot.ladder:
        return slot, ()  # it is on its way out already, or still boots
    ladder = rules.gentle_ladder(now) if event.gently else rules.ladder(now)
    return _climbed(replace(slot, hung=event.cause, ladder=ladder), TimePassed(), now, rules)


def _shifted(slot: Slot, event: MasterSlept, now: float, rules: Rules) -> Step:
    # The child was very likely stopped with us: what it could not use must not be taken from its time.
    ladder = tuple((at + event.seconds, action) for at, action in slot.ladder)
    failing_since = None if slot.failing_since is None else slot.failing_since + event.seconds
    return replace(slot, ladder=ladder, failing_since=failing_since), ()


def _climbed(slot: Slot, event: TimePassed, now: float, rules: Rules) -> Step:
    actions = tuple(action for at, action in slot.ladder if at <= now)
    if not actions:
        return slot, ()  # in each turn of the loop, for each child
    pushed = not {Action.QUIT, Action.KILL}.isdisjoint(actions)
    return replace(
        slot,
        ladder=slot.ladder[len(actions) :],
        pushed=slot.pushed or pushed,
        cut=slot.cut or (pushed and slot.state is State.DRAINING),
    ), actions


def _stopped(slot: Slot, event: StopAsked | ForceAsked, now: float, rules: Rules) -> Step:
    return replace(slot, state=State.STOPPED, since=now, reason=""), ()


def _draining(slot: Slot, event: StopAsked, now: float, rules: Rules) -> Step:
    slot = replace(_paused(slot, now), state=State.DRAINING, reason="", pushed=False)
    return replace(slot, ladder=rules.ladder(now + rules.grace)), (Action.TERMINATE,)


def _forced(slot: Slot, event: ForceAsked, now: float, rules: Rules) -> Step:
    # A second order does not give more time than the first.
    kill_at = now + rules.kill_after
    if slot.state is State.DRAINING:
        kill_at = min([kill_at, *(at for at, action in slot.ladder if action is Action.KILL)])
    else:
        slot = replace(_paused(slot, now), state=State.DRAINING, reason="", pushed=False)
    return replace(slot, ladder=((kill_at, Action.KILL),)), (Action.QUIT,)


def _left(slot: Slot, event: Exited, now: float, rules: Rules) -> Step:
    ending = event.exit.ending
    is_cut = event.exit.in_flight is not None or ending.signal is not None or ending.code == ChildExit.FORCED
    slot = replace(slot, state=State.STOPPED, since=now, pid=None, ladder=())
    return replace(slot, last_exit=event.exit, cut=slot.cut or is_cut), ()


def _paused(slot: Slot, now: float) -> Slot:
    """No longer consuming: what it has consumed counts."""
    stretch = 0.0 if slot.consuming_since is None else now - slot.consuming_since
    return replace(slot, since=now, consuming_since=None, consumed=slot.consumed + stretch)


# Any: each function takes the one event that it is listed for.
Transition: TypeAlias = Callable[[Slot, Any, float, Rules], Step]

_resting: dict[type[Event], Transition] = {
    Forked: _forked,
    ForkFailed: _fork_failed,
    MasterSlept: _shifted,
    StopAsked: _stopped,
    ForceAsked: _stopped,
}
_running: dict[type[Event], Transition] = {
    Consuming: _consuming,
    Waiting: _waiting,
    Hung: _hung,
    Exited: _crashed,
    MasterSlept: _shifted,
    TimePassed: _climbed,
    StopAsked: _draining,
    ForceAsked: _forced,
}

TABLE: Mapping[State, Mapping[type[Event], Transition]] = {
    State.PENDING: _resting,
    State.BACKOFF: _resting,
    State.FAILED: _resting,
    State.STARTING: {**_running, Booted: _booted},
    State.WAITING: {**_running, Waiting: _reason_changed},
    State.CONSUMING: _running,
    State.DRAINING: {Exited: _left, MasterSlept: _shifted, TimePassed: _climbed, ForceAsked: _forced},
    State.STOPPED: {},
}
