"""Whether a child hangs: it gives no sign of life, or a handler takes longer than its receiver allows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain_events.supervisor.notes import InHand
from domain_events.supervisor.slots import Hung

SILENCE = 15.0
"""Seconds without a sign of life after which a child that drains does not count as alive: three beats and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Durations in seconds; None: no limit."""

    timeout: float | None  # of the receiver: for one event
    patience: float = 0.0  # on top of it, where the handler itself is told first
    hang_timeout: float | None  # without a sign of life


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`culprits`: ids of the events to blame. `look_at`: when to look again, None: never."""

    hung: Hung | None = None
    culprits: tuple[str, ...] = ()
    look_at: float | None = None


def look(
    limits: Limits, *, in_hand: Sequence[InHand], last_beat: float | None, not_before: float, now: float
) -> Verdict:
    """`not_before`: when the master woke up last, or the child was forked: no clock counts from earlier than that.

    `in_hand`: oldest first. Nobody tells us when an event is taken into the hand: so we look once in each timeout,
    and find each event's own deadline in time.
    """
    times = []
    if limits.timeout is not None:
        allowed = limits.timeout + limits.patience
        expired = [event for event in in_hand if now >= max(event.since, not_before) + allowed]
        if expired:
            return Verdict(
                hung=Hung(cause=f"timeout {float(limits.timeout)!r}s", gently=len(in_hand) > len(expired)),
                culprits=tuple(event.id for event in expired),
            )
        times.append((max(in_hand[0].since, not_before) if in_hand else now) + allowed)
    if limits.hang_timeout is not None and last_beat is not None:
        at = max(last_beat, not_before) + limits.hang_timeout
        if now >= at:
            return Verdict(
                hung=Hung(cause=f"no sign of life for {limits.hang_timeout:g}s"),
                culprits=tuple(event.id for event in in_hand),
            )
        times.append(at)
    return Verdict(look_at=min(times, default=None))


def works_on(
    limits: Limits, *, in_hand: Sequence[InHand], last_beat: float | None, not_before: float, now: float
) -> bool:
    """Whether a child that drains is worth waiting for: it shows that it lives, and its handlers are within their
    time. A handler without a limit is: the drain has its own."""
    if last_beat is None:
        return False
    limits = replace(limits, hang_timeout=SILENCE)
    verdict = look(limits, in_hand=in_hand, last_beat=last_beat, not_before=not_before, now=now)
    return verdict.hung is None
