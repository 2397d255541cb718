"""The life of a child: from the fork to its exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, Protocol

from domain_events import lifecycle
from domain_events.errors import BrokerRefused, ConfigurationError
from domain_events.forks import end_fork
from domain_events.observers import Observer, everybody, observe
from domain_events.oversight import Oversight
from domain_events.registration import Registration
from domain_events.stopping import Stop
from domain_events.supervisor.blame import Blame
from domain_events.supervisor.exits import ChildExit
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.notes import Record
from domain_events.supervisor.notify import forget_service_manager
from domain_events.supervisor.posts import Orders
from domain_events.supervisor.reports import Reporter
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.spawn import ORPHANED_SIGNAL, Mask, tell_when_orphaned
from domain_events.supervisor.stacks import write_stacks_to
from domain_events.supervisor.titles import child_title, set_title
from domain_events.supervisor.watching import Watching
from domain_events.supervisor.wear import Wear

logger = logging.getLogger(__name__)

_LOG_FLUSH = 2.0  # seconds
_OOM_SCORE_STEP = 100  # of 1000: when memory is short, the kernel takes a child and not the master


class Consume(Protocol):
    """What a child is for: `domain_events.handling.consume`, or a test's."""

    def __call__(
        self,
        registrations: Sequence[Registration],
        /,
        *,
        stop: Stop,
        observer: Observer,
        oversight: Oversight,
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a child gets from its master."""

    registration: Registration
    orders: Orders
    status_fd: int  # to be written
    stacks_fd: int  # to be written, by C code in any state of the interpreter
    lifeline_fd: int  # ends when the master does
    log: LogLine
    arena: Arena
    boot: Callable[[], None]  # runs in the child before it consumes
    consume: Consume


class Child:
    """One child, inside of it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._slot = place.orders.slot
        self._pid = os.getpid()
        self._stop = Stop()
        self._reporter = Reporter(place.status_fd)
        self._record = Record(place.arena.view(place.orders.record), place.registration.concurrency)
        self._blame = Blame(place.arena.view(place.orders.blame))
        self._wear = Wear(place.orders.lifespan.jittered(), self._worn)
        self._is_consuming = False
        self._is_orphan = False
        self._is_told = False  # by the kernel, that it is one
        self._orphaning = threading.Lock()

    def run(self, mask: Mask) -> int:
        """The exit code. `mask` is set once signals have their handlers."""
        place = self._place
        place.log.in_child()
        forget_service_manager()
        self._install_signals()
        # Before the signals come: the thread keeps them blocked, so that they interrupt the main thread.
        threading.Thread(target=self._watch_lifeline, name="de-lifeline", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_before_the_master()
        if not tell_when_orphaned(place.orders.master):
            self._orphaned()
        # The I/O thread waits less for a handler that computes than the usual 5 ms.
        sys.setswitchinterval(0.001)
        self._show("starting")
        code = self._live()
        return self._leave(code)

    def _live(self) -> int:
        place = self._place
        try:
            place.boot()
            lifecycle.run_child_started()
        except BaseException:
            logger.exception("%s did not boot", self._slot)
            return ChildExit.BOOT_FAILED
        self._reporter.booted()
        if self._reporter.is_cut:
            self._orphaned()
        try:
            return self._work()
        finally:
            if os.getpid() == self._pid:
                lifecycle.run_child_stopping()

    def _work(self) -> int:
        if self._is_asked():
            return self._drained()
        self._is_consuming = True
        try:
            self._consume()
        except (ConfigurationError, BrokerRefused) as error:
            logger.error("%s cannot work until a person changes something: %s", self._slot, error)
            return ChildExit.CONFIGURATION
        except BaseException:
            logger.exception("%s crashed", self._slot)
            return ChildExit.CRASHED
        if not self._is_asked():
            logger.error("%s stopped consuming though nobody has asked for it", self._slot)
            return ChildExit.CRASHED
        return self._drained()

    def _drained(self) -> int:
        return ChildExit.RECYCLED if self._wear.is_worn else ChildExit.DRAINED

    def _consume(self) -> None:
        place = self._place
        watching = Watching(
            self._record, self._blame, self._wear, self._consuming, self._waiting, self._reporter.delayed
        )
        _observe_here(watching)
        try:
            place.consume(
                [place.registration],
                stop=self._stop,
                observer=watching,
                oversight=Oversight(
                    forced=self._forced,
                    judge=self._blame.judge,
                    forgive=self._blame.forgive,
                    reading=watching.reading,
                    beat=self._beat,
                    beat_every=place.orders.beat_every,
                    alerts=place.orders.alerts,
                ),
            )
        except BaseException as error:
            if os.getpid() != self._pid:
                end_fork(error)  # a handler forked, and did not end the fork
            raise
        finally:
            self._is_consuming = False

    def _is_asked(self) -> bool:
        return self._stop.requested

    def _leave(self, code: int) -> int:
        # The kernel's signal may have been faster than the end of the lifeline, and that faster than the kernel
        # in giving us another parent. Also when it is known already: the other thread may be writing the line.
        if self._is_orphan or self._is_told or os.getppid() != self._place.orders.master:
            self._orphaned()
        if code in (ChildExit.DRAINED, ChildExit.RECYCLED) and self._is_orphan:
            code = ChildExit.ORPHANED
        self._place.log.close_in_child(_LOG_FLUSH)
        return code

    def _install_signals(self) -> None:
        signal.set_wakeup_fd(self._stop.wakeup_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, self._on_quit)
        signal.signal(ORPHANED_SIGNAL, self._on_orphaned)
        # For what a handler forks: a SIGTERM must end it, as multiprocessing expects.
        self._stop.handlers_before = dict.fromkeys((signal.SIGTERM, signal.SIGQUIT, ORPHANED_SIGNAL), signal.SIG_DFL)
        # Ctrl-C and the end of a terminal go to all of us, but the master decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        write_stacks_to(self._place.stacks_fd)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self._stop.request()

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        # While it consumes, the I/O thread has read the signal from the stop's socket and calls `_forced`.
        if not self._is_consuming:
            os._exit(ChildExit.ORPHANED if self._is_orphan else ChildExit.DRAINED)

    def _on_orphaned(self, number: int, frame: FrameType | None) -> None:
        # Not here: what it locks, this thread may have locked. `stop.request` is fit for a signal handler.
        self._is_told = True
        self._stop.request()

    def _forced(self, in_hand: bool) -> NoReturn:
        """In the I/O thread: end now. The main thread may be anywhere in a handler: nothing is unwound."""
        if in_hand:
            logger.warning("%s is cut: the event in hand will come again", self._slot)
        code = ChildExit.FORCED if in_hand else ChildExit.ORPHANED if self._is_orphan else ChildExit.DRAINED
        self._place.log.close_in_child(_LOG_FLUSH)
        os._exit(code)

    def _watch_lifeline(self) -> None:
        os.read(self._place.lifeline_fd, 1)  # nobody ever writes: this returns when the master is gone
        self._orphaned()
        time.sleep(self._place.orders.orphan_patience)
        logger.warning("%s is cut: an orphan waits no longer", self._slot)
        self._place.log.close_in_child(_LOG_FLUSH)
        os._exit(ChildExit.FORCED)

    def _orphaned(self) -> None:
        with self._orphaning:  # whoever comes second waits until the line is written: it may be about to exit
            if not self._is_orphan:
                self._is_orphan = True
                self._stop.request()
                # From here on to stderr: a master that is just dying still takes lines that nobody will read.
                self._place.log.close_in_child(_LOG_FLUSH)
                write_stacks_to(2)
                logger.warning("%s has lost its master; it finishes what is in hand, then leaves", self._slot)

    def _beat(self) -> None:
        self._record.beat()
        self._wear.time_passed()

    def _worn(self, reason: str) -> None:
        # The master decides when: it lets the next one consume first.
        self._reporter.worn(reason)

    def _consuming(self) -> None:
        if self._reporter.consuming():
            self._show("consuming")

    def _waiting(self, reason: str) -> None:
        if self._reporter.waiting(reason):
            self._show("waiting")

    def _show(self, state: str) -> None:
        set_title(child_title(self._slot, state), self._slot)


def _observe_here(watching: Watching) -> None:
    """In this process alone: two that add to one number of the record at a time would lose some."""
    observe(watching)

    def forget() -> None:
        everybody[:] = [each for each in everybody if each is not watching]

    os.register_at_fork(after_in_child=forget)


def die_before_the_master() -> None:
    """The kernel's choice when memory is short (proc(5), oom_score_adj). Everybody may make it worse for himself."""
    with suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, b"%d" % min(1000, int(os.pread(fd, 32, 0)) + _OOM_SCORE_STEP), 0)
        finally:
            os.close(fd)
