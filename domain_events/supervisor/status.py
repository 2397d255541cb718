"""How all slots together look from outside: ready or not, and one line for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from domain_events.supervisor.slots import Slot, State

_LONGEST = 500  # characters; systemd cuts what is much longer


def consuming(slots: Sequence[Slot]) -> int:
    return sum(slot.state is State.CONSUMING for slot in slots)


def is_ready(slots: Sequence[Slot], when: Literal["booted", "consuming"]) -> bool:
    """`booted`: each slot has had a child that booted, or waits for its next try, with the reason in the status."""
    if when == "consuming":
        return consuming(slots) == len(slots)
    return all(slot.booted_once or slot.state in (State.BACKOFF, State.FAILED) for slot in slots)


def status_line(slots: Sequence[Slot], *, stopping: bool, reload: str = "") -> str:
    """As `2/3 consuming; printer#0 backoff: exit 70`. `reload`: how far one is, when there is one."""
    if stopping:
        left = [slot.name for slot in slots if slot.state is State.DRAINING]
        noun = "child" if len(left) == 1 else "children"
        return _shortened(f"stopping, {len(left)} {noun} left: {', '.join(left)}" if left else "stopped")
    head = [f"reloading: {reload}"] if reload else []
    # Those that need a person first: the line may be too short for all.
    order = [State.FAILED, State.BACKOFF, State.WAITING, State.STARTING, State.PENDING]
    tail = [
        f"{slot.name} {slot.state.shown}{f': {slot.reason}' if slot.reason else ''}"
        for state in order
        for slot in slots
        if slot.state is state
    ]
    return _shortened("; ".join([*head, f"{consuming(slots)}/{len(slots)} consuming", *tail]))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
