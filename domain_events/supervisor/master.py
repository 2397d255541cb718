"""The master: one loop that forks children, hears of them, and stops them. No AMQP, no database."""

from __future__ import annotations

import logging
import random
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

from domain_events.registration import Registration
from domain_events.supervisor import lines
from domain_events.supervisor.child import Consume
from domain_events.supervisor.display import Display
from domain_events.supervisor.exits import MasterExit, signal_name
from domain_events.supervisor.lock import Lock
from domain_events.supervisor.master_log import MasterLog
from domain_events.supervisor.nursery import Nursery
from domain_events.supervisor.options import Options
from domain_events.supervisor.process import Process
from domain_events.supervisor.restarts import full_bucket
from domain_events.supervisor.seats import Seat, end_all, seats_for
from domain_events.supervisor.signals import SignalSocket
from domain_events.supervisor.slots import (
    RESTING,
    Event,
    Exited,
    ForceAsked,
    Forked,
    ForkFailed,
    Slot,
    State,
    StopAsked,
    TimePassed,
    give_up_at,
)
from domain_events.supervisor.spawn import settle_memory
from domain_events.supervisor.status import status_line
from domain_events.supervisor.stderr import write_stacks
from domain_events.supervisor.transitions import step

logger = logging.getLogger(__package__)

_SLACK = 1.0  # seconds that killed children have to vanish
_LOG_TIMEOUT = 2.0  # seconds, at the end, for the last lines of all children and the master together
_LOG_PATIENCE = 0.1  # seconds, in one turn of the loop, for the last lines of those that have died


def run(
    registrations: Sequence[Registration],
    options: Options,
    *,
    consume: Consume,
    boot: Callable[[], None] = lambda: None,
    title: str = "",
    lock: Lock | None = None,
) -> int:
    """Supervise until told to stop; returns the exit code of the master. Main thread only, and the process ends with
    it: signals that ask for the end are ignored from then on.

    `boot` runs in each child before it consumes. `title` is what `ps` calls this master. Children let `lock` go.
    """
    with SignalSocket() as signals, MasterLog() as log:
        master = Master(registrations, options, signals, log, consume=consume, boot=boot, title=title, lock=lock)
        return master.run()


class Master:
    """Its state is that of its seats; everything else here is about when to look at them."""

    def __init__(
        self,
        registrations: Sequence[Registration],
        options: Options,
        signals: SignalSocket,
        log: MasterLog,
        *,
        consume: Consume,
        boot: Callable[[], None],
        title: str,
        lock: Lock | None,
    ) -> None:
        now = time.monotonic()
        self._options = options
        self._rules = options.rules
        self._signals = signals
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.fileno(), selectors.EVENT_READ, self._on_signals)
        self._display = Display(title, options.ready, now)
        self._nursery = Nursery(
            consume=consume,
            boot=boot,
            orphan_patience=options.grace + options.kill_after,
            master_only=(self._selector, signals, log, self._display, *([lock] if lock else [])),
        )
        self._seats = seats_for(registrations, now)
        self._bucket = full_bucket(options.spawn_rate, now)
        self._logs_until = now
        self._interrupts = 0
        self._deadline: float | None = None  # of the whole stop, once it has begun
        self._gave_up = False

    def run(self) -> int:
        settle_memory()
        try:
            code = self._supervise()
        except Exception:
            # An error of ours must not leave children behind, and this loop cannot be trusted any more.
            logger.critical("the supervisor has failed; it ends its children and leaves", exc_info=True)
            self._display.stopping()
            end_all(self._seats, self._options.grace)
            code = MasterExit.INTERNAL
        self._close()
        return code

    def _supervise(self) -> int:
        while True:
            now = time.monotonic()
            for seat in self._seats:
                self._apply(seat, TimePassed(), now)
            self._check_giving_up(now)
            self._fork_next(now)
            self._display.show(self._slots, now)
            if self._deadline is not None and self._has_ended(now):
                return self._end()
            wake_at = self._next_time(now)
            timeout = None if wake_at is None else max(0.0, wake_at - time.monotonic())
            ready = self._selector.select(timeout)
            self._logs_until = time.monotonic() + _LOG_PATIENCE
            # Signals first: a child that got the same SIGTERM as we did has not crashed.
            for key, _ in sorted(ready, key=lambda item: item[0].fd != self._signals.fileno()):
                key.data()

    @property
    def _slots(self) -> tuple[Slot, ...]:
        return tuple(seat.slot for seat in self._seats)

    def _next_time(self, now: float) -> float | None:
        """When something is due without anybody telling us. None: never; an idle master sleeps."""
        times = [slot.ladder[0][0] for slot in self._slots if slot.ladder]
        times += [max(s.due, self._bucket.ready_at(now)) for s in self._slots if s.state in RESTING]
        if self._deadline is not None:
            times.append(self._deadline)
        elif (give_up := give_up_at(self._slots, self._options.give_up_after)) is not None:
            times.append(give_up)
        if self._display.due is not None:
            times.append(self._display.due)
        return min(times, default=None)

    def _apply(self, seat: Seat, event: Event, now: float) -> None:
        before = seat.slot.state
        seat.slot, actions = step(seat.slot, event, now, self._rules)
        seat.carry_out(actions)
        if seat.slot.state is State.CONSUMING and before is not State.CONSUMING:
            seat.log_line(logging.INFO, "child_consuming")

    def _fork_next(self, now: float) -> None:
        """At most one: between two forks the loop looks at signals."""
        waiting = [seat for seat in self._seats if seat.slot.state in RESTING and seat.slot.due <= now]
        if not waiting:
            return
        bucket = self._bucket.take(now)
        if bucket is None:
            return
        self._bucket = bucket
        seat = min(waiting, key=lambda seat: seat.slot.due)
        try:
            process = self._nursery.fork(seat, [s.process for s in self._seats if s.process])
        except OSError as error:
            self._apply(seat, ForkFailed(f"fork failed: {error.strerror}", random.random()), now)  # noqa: S311
            logger.error("%s cannot be forked: %s", seat.slot.name, error.strerror)
            return
        seat.process = process
        self._watch(seat, process)
        self._apply(seat, Forked(process.pid), now)
        seat.log_line(logging.INFO, "child_start", n=seat.slot.restarts)

    def _watch(self, seat: Seat, process: Process) -> None:
        self._selector.register(process.status_fd, selectors.EVENT_READ, partial(self._on_report, seat, process))
        if process.pidfd is not None:
            self._selector.register(process.pidfd, selectors.EVENT_READ, partial(self._on_death, seat, process))

    def _on_report(self, seat: Seat, process: Process) -> None:
        if seat.process is not process:
            return  # its death stood before this in the same turn
        now = time.monotonic()
        for report in process.reports():
            self._apply(seat, report, now)
        if process.has_hung_up:
            self._forget(process.status_fd)  # readable for ever

    def _on_death(self, seat: Seat, process: Process) -> None:
        ending = process.ending() if seat.process is process else None
        if ending is None:
            return
        self._on_report(seat, process)  # its last words: it may have booted before it died
        now = time.monotonic()
        in_flight = seat.record.in_hand
        asked = seat.slot.state is State.DRAINING
        self._apply(seat, Exited(ending=ending, in_flight=in_flight is not None, spread=random.random()), now)  # noqa: S311
        seat.process = None
        self._forget(process.status_fd)
        if process.pidfd is not None:
            self._forget(process.pidfd)
        process.close(max(0.0, self._logs_until - now))
        seat.log_line(
            logging.INFO if asked and not seat.slot.cut else logging.WARNING,
            "child_exit",
            pid=process.pid,
            signal=None if ending.signal is None else signal_name(ending.signal),
            code=ending.code,
            in_flight=in_flight,
            n=None if asked else seat.slot.failures,
            delay=max(0.0, seat.slot.due - now) if seat.slot.state in RESTING else None,
            reason=seat.slot.reason or None,
        )

    def _forget(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _on_signals(self) -> None:
        for number in self._signals.read():
            match number:
                case signal.SIGTERM:
                    self._stop(StopAsked(), number)
                case signal.SIGINT:
                    self._interrupts += 1
                    self._stop(StopAsked() if self._interrupts == 1 else ForceAsked(), number)
                case signal.SIGQUIT:
                    self._stop(ForceAsked(), number)
                case signal.SIGUSR2:
                    write_stacks()
                    for seat in self._seats:
                        if seat.process:
                            seat.process.send(signal.SIGUSR2)
                case signal.SIGHUP:
                    logger.warning("SIGHUP: there is no reload yet; new code needs a restart")
                case signal.SIGCHLD:
                    for seat in self._seats:
                        if seat.process and seat.process.pidfd is None:
                            self._on_death(seat, seat.process)

    def _stop(self, event: StopAsked | ForceAsked, number: int | None, reason: str | None = None) -> None:
        """Idempotent; force only ever shortens it."""
        now = time.monotonic()
        patience = self._options.kill_after + _SLACK
        if self._deadline is None:
            self._display.stopping()
            name = None if number is None else signal_name(number)
            living = sum(seat.process is not None for seat in self._seats)
            lines.write(logger, logging.INFO, "stop_begin", signal=name, reason=reason, n=living)
            self._deadline = now + self._options.grace + patience
        if isinstance(event, ForceAsked):
            logger.warning("forced: whoever has an event in hand is cut, and the event will come again")
            self._deadline = min(self._deadline, now + patience)
        for seat in self._seats:
            self._apply(seat, event, now)

    def _check_giving_up(self, now: float) -> None:
        at = give_up_at(self._slots, self._options.give_up_after)
        if self._deadline is None and at is not None and now >= at:
            self._gave_up = True
            reason = f"all receivers have failed for {self._options.give_up_after:g} s"
            logger.error("%s: giving up; the last reasons: %s", reason, status_line(self._slots, stopping=False))
            self._stop(StopAsked(), None, reason)

    def _has_ended(self, now: float) -> bool:
        assert self._deadline is not None
        return now >= self._deadline or all(slot.state is State.STOPPED for slot in self._slots)

    def _end(self) -> int:
        left = [slot.name for slot in self._slots if slot.state is not State.STOPPED]
        if left:
            logger.error("not even SIGKILL has ended %s; leaving without", ", ".join(left))
        cut = [slot.name for slot in self._slots if slot.cut or slot.name in left]
        code = MasterExit.ALL_FAILING if self._gave_up else MasterExit.FORCED if cut else MasterExit.CLEAN
        reason = f"cut: {', '.join(cut)}" if cut else None
        level = logging.WARNING if cut else logging.INFO
        lines.write(logger, level, "drain_end", code=int(code), n=len(cut), reason=reason)
        return code

    def _close(self) -> None:
        logs_until = time.monotonic() + _LOG_TIMEOUT
        for seat in self._seats:
            if seat.process:
                seat.process.close(max(0.0, logs_until - time.monotonic()))
        self._nursery.close()
        self._selector.close()
        self._display.close()
        self._log.close(max(_LOG_PATIENCE, logs_until - time.monotonic()))
