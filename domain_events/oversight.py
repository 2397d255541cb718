"""What a supervisor wants of the consumer in its child: signs of life, a judgement of suspects, an end by force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Suspicion(NamedTuple):
    """What is known of an event that was in hand when a consumer died.

    A suspect is handled alone, with no other event in hand: when the consumer dies again, its culprit is known.
    """

    deaths: int
    cause: str  # of the last one, as `SIGSEGV`, `exit 3`, `timeout 2.0s`
    condemned: bool  # to be set aside without calling the handler
    stacks: str = ""  # of all threads, at the last death

    @property
    def reason(self) -> str:
        return f"consumer died {self.deaths}x ({self.cause})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Oversight:
    """Every function is cheap, and raises nothing."""

    forced: Callable[[bool], None]
    """Called in the I/O thread on SIGQUIT; the argument tells whether a handler is running. Ends the process."""
    judge: Callable[[str], Suspicion | None]
    """Asked, with the event's id, before a handler is called, in the thread of the handler."""
    forgive: Callable[[str], object] = lambda _event_id: None
    """Told in the I/O thread's turn that a condemned event, by its id, is settled: sent again, it is judged anew."""
    reading: Callable[[str], Callable[[], object] | None] = lambda _event_id: None
    """Told before a large body is read, which may take more memory than there is; what it returns is called after."""
    beat: Callable[[], None]
    """A sign of life of the I/O thread."""
    beat_every: float
    """Seconds between two signs of life, at most."""
    alerts: bool = False
    """Whether an event is sent about each event that is given up: see `alerts`."""
