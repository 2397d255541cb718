"""Replaying and discarding, in threads of their own: a page shows how far they are, and can stop them."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from domain_events.errors import DomainEventError
from domain_events.supervisor import lines
from domain_events.supervisor.threads import start_thread
from domain_events.transport.dead_letters.queue import DeadLetterQueue
from domain_events.transport.dead_letters.wanted import Wanted
from domain_events.transport.dead_letters.working import Tally, Work

logger = logging.getLogger(__name__)

CANARY = 30.0
"""Seconds to wait for what becomes of the first event."""

_MOST_RUNNING = 4
_GOODBYE = 1.5  # seconds, at the end of the process
_KEPT = 50  # that have ended


@dataclass(kw_only=True)
class Job:
    id: str
    did: Literal["replayed", "discarded"]
    receiver: str
    what: str  # was asked for, in words
    canary: bool
    tally: Tally = field(default_factory=Tally)
    total: int = 0  # letters in the queue at the beginning, about
    problem: str = ""
    is_over: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.time)  # Unix seconds

    @property
    def is_well(self) -> bool:
        return self.is_over and not self.problem and not self.tally.stopped


class TooMany(DomainEventError):
    """So many run at once already."""


class Jobs:
    """The newest, by their ids."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def begin(
        self,
        open_queue: Callable[[], DeadLetterQueue],
        *,
        did: Literal["replayed", "discarded"],
        receiver: str,
        wanted: Wanted,
        what: str,
        canary: bool,
    ) -> Job:
        """Raises TooMany."""
        running = [job for job in self._jobs.values() if not job.is_over]
        if len(running) >= _MOST_RUNNING:
            raise TooMany(f"{len(running)} are running already; wait for the end of one, or stop it")
        job = Job(id=secrets.token_hex(8), did=did, receiver=receiver, what=what, canary=canary)
        self._jobs[job.id] = job
        for old in [each for each in self._jobs.values() if each.is_over][: max(0, len(self._jobs) - _KEPT)]:
            del self._jobs[old.id]
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(start_thread("de-job", lambda: _run(job, open_queue, wanted)))
        return job

    def close(self) -> None:
        """The process ends: what is begun is finished if that is soon, and the log says how far it came."""
        for job in self._jobs.values():
            job.stop.set()
        until = time.monotonic() + _GOODBYE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _run(job: Job, open_queue: Callable[[], DeadLetterQueue], wanted: Wanted) -> None:
    try:
        with open_queue() as queue:
            job.total = queue.count
            work = Work(queue=queue, wanted=wanted, stop=job.stop, tally=job.tally)
            if job.did == "replayed":
                work.replay(canary=CANARY if job.canary else None)
            else:
                work.discard()
    except DomainEventError as error:
        job.problem = str(error)
    except Exception:
        job.problem = "a fault of ours; the log says more"
        raise
    finally:
        job.is_over = True
        # Somebody has done this, and others will ask who.
        level = logging.INFO if job.is_well else logging.WARNING
        reason = job.problem or job.tally.stopped or None
        event = f"dead_letters_{job.did}"
        lines.write(logger, level, event, receiver=job.receiver, n=job.tally.done, what=job.what, reason=reason)
