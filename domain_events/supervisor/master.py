"""The master: one loop that forks children, hears of them, and stops them. No AMQP, no database."""

from __future__ import annotations

import faulthandler
import logging
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from domain_events.alerts import has_id_of_alert
from domain_events.bucket import full_bucket
from domain_events.jitter import fraction
from domain_events.lifecycle import HookFailed
from domain_events.registration import Registration
from domain_events.supervisor import hanging, lines, strangers
from domain_events.supervisor.causes import Cause, cause_of
from domain_events.supervisor.changes import Changes
from domain_events.supervisor.child import Consume
from domain_events.supervisor.control import Control
from domain_events.supervisor.counting import Sums
from domain_events.supervisor.crew import Crew
from domain_events.supervisor.display import Display, Draining
from domain_events.supervisor.exits import ChildExit, MasterExit, signal_name
from domain_events.supervisor.herald import Herald
from domain_events.supervisor.http_child import HttpChild
from domain_events.supervisor.http_plan import HttpPlan
from domain_events.supervisor.launch import remembered
from domain_events.supervisor.lock import Lock
from domain_events.supervisor.logs import close_late, finish_in_master
from domain_events.supervisor.master_log import MasterLog
from domain_events.supervisor.nursery import Nursery, OwnCode, Source
from domain_events.supervisor.operating import Operating
from domain_events.supervisor.options import Options
from domain_events.supervisor.posts import HttpOrders, Orders, posts_of
from domain_events.supervisor.process import Process
from domain_events.supervisor.reports import Delayed, Worn
from domain_events.supervisor.seats import Seat, end_all
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.signals import SignalSocket
from domain_events.supervisor.slots import (
    RESTING,
    Event,
    Exited,
    ForceAsked,
    Forked,
    ForkFailed,
    LastExit,
    MasterSlept,
    State,
    StopAsked,
    TimePassed,
    give_up_at,
)
from domain_events.supervisor.spawn import adopt_orphans, settle_memory
from domain_events.supervisor.status import status_line
from domain_events.supervisor.stderr import write_stacks
from domain_events.supervisor.transitions import step
from domain_events.supervisor.watch import Watch, source_directories

logger = logging.getLogger(__package__)

_SLACK = 1.0  # seconds that killed children have to vanish
_LOG_TIMEOUT = 2.0  # seconds, at the end, for the last lines of all children and the master together
_LOG_PATIENCE = 0.1  # seconds, in one turn of the loop, for the last lines of those that have died
_LATE_LOGS = 5.0  # seconds between looks whether the log of a dead child has ended that had not by then
_OVERSLEPT = 1.0  # seconds: whoever wakes up so late was stopped
_TICK = 0.5  # seconds of one sleep, while somebody's time runs: one cannot see that a part of it was no sleep
_STRANGERS = 1.0  # seconds that programs have which handlers have left behind, at the end
_SLOWEST_BEAT = 5.0  # seconds
_BEATS = 8  # in one --hang-timeout


def run(
    registrations: Sequence[Registration],
    options: Options,
    *,
    consume: Consume,
    boot: Callable[[], None] = lambda: None,
    title: str = "",
    lock: Lock | None = None,
    http: HttpPlan | None = None,
) -> int:
    """Supervise until told to stop; returns the exit code of the master. Main thread only, and the process ends with
    it: signals that ask for the end are ignored from then on.

    `boot` runs in each child before it consumes. `title` is what `ps` calls this master. Children let `lock` go.
    `http`: one more child, which serves HTTP.
    Raises ControlTaken when another master has the control socket.
    """
    with SignalSocket() as signals, MasterLog() as log:
        master = Master(
            registrations, options, signals, log, consume=consume, boot=boot, title=title, lock=lock, http=http
        )
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
        http: HttpPlan | None,
    ) -> None:
        now = time.monotonic()
        self._options = options
        self._rules = options.rules
        self._signals = signals
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.fileno(), selectors.EVENT_READ, lambda: None)  # they are read in each turn
        self._display = Display(title, options.ready, now)
        self._arena = Arena()
        self._crew = Crew(self._arena)
        source = OwnCode(registrations, posts_of(registrations), consume, boot, http.service if http else None)
        for post in source.posts:
            for index in range(post.processes):
                self._crew.add(post, index, source, now)
        self._changes = Changes(
            self._crew,
            source,
            self._selector,
            remembered(),
            retire=self._retire,
            patience=options.boot_timeout,
            backoff=options.backoff,
        )
        dropped = Sums()
        self._operating = Operating(
            self._crew,
            self._changes,
            self._display.state,
            now,
            log_records_dropped=lambda: {**dropped.values(), "master": log.dropped},
        )
        self._control = Control(options.control, self._selector, self._operating.answer) if options.control else None
        self._http = (
            HttpChild(
                http.place,
                self._selector,
                self._operating.answer,
                self._fork_http,
                backoff=options.backoff,
                stable_after=options.stable_after,
            )
            if http is not None
            else None
        )
        self._watch = Watch(source_directories(), now) if options.watch else None
        self._herald = Herald(registrations, self._rules, self._selector) if options.alerts else None
        self._nursery = Nursery(
            self._arena,
            log_records_dropped=dropped,
            let_go=(
                self._selector.close,
                signals.close,
                log.close,
                self._display.close,
                self._changes.close_descriptors,
                *([lock.close] if lock else []),
                *([self._herald.close_descriptors] if self._herald else []),
                *([self._control.close_descriptors] if self._control else []),  # the file of the socket stays
                *([self._http.close_descriptors] if self._http else []),
            ),
        )
        # It bounds what a machine suffers when every receiver crashes at once, whatever their back-offs say.
        self._bucket = full_bucket(options.spawn_rate, now)
        self._logs_until = now
        self._awake_since = now
        self._logs_are_late = False
        self._not_before = now  # no clock of a child counts from earlier than that
        self._interrupts = 0
        self._deadline: float | None = None  # of the whole stop, once it has begun
        self._gave_up = False

    def run(self) -> int:
        if not faulthandler.is_enabled():
            # systemd ends a loop that hangs with SIGABRT (WatchdogSec=): the log should say where it was.
            faulthandler.enable(2)
        adopt_orphans()
        settle_memory()
        try:
            code = self._supervise()
        except Exception:
            # An error of ours must not leave children behind, and this loop cannot be trusted any more.
            logger.critical("the supervisor has failed; it ends its children and leaves", exc_info=True)
            self._display.stopping()
            end_all(self._crew.seats, self._options.grace)
            code = MasterExit.INTERNAL
        self._close()
        return code

    def _supervise(self) -> int:
        while True:
            now = time.monotonic()
            # All together, though only one of them is due: an idle master wakes up once for all.
            is_time_to_look = any(seat.look_at is not None and now >= seat.look_at for seat in self._crew.seats)
            for seat in list(self._crew.seats):
                self._look_after(seat, now, is_time_to_look)
            if self._deadline is None:
                self._crew.sweep()
                self._changes.advance(now)
                self._check_giving_up(now)
                self._look_at_files(now)
                self._send_alerts(now)
            self._fork_next(now)
            self._look_after_http(now)
            self._logs_are_late = close_late()
            self._show(now)
            if self._deadline is not None and self._has_ended(now):
                return self._end()
            self._sleep(now)

    def _sleep(self, now: float) -> None:
        """Until something happens or is due, and then see to it."""
        ready, overslept = self._wait(self._next_time(now))
        woke_at = self._awake_since
        # Read in any case: an interrupted select(2) may come back without having looked.
        signals = self._signals.read()
        if overslept > _OVERSLEPT or signal.SIGCONT in signals:
            self._oversleep(max(0.0, overslept), woke_at)
        self._logs_until = woke_at + _LOG_PATIENCE
        # Signals first: a child that got the same SIGTERM as we did has not crashed.
        self._on_signals(signals)
        for key, _ in ready:
            key.data()
        if self._control is not None:
            self._control.tick(time.monotonic())

    def _wait(self, wake_at: float | None) -> tuple[list[tuple[selectors.SelectorKey, int]], float]:
        """What is ready, and for how long this process was stopped, as far as the clock shows it."""
        tick = _TICK if self._counts_down() else None
        while True:
            slept_at = time.monotonic()
            due_in = None if wake_at is None else max(0.0, wake_at - slept_at)
            timeout = min((seconds for seconds in (due_in, tick) if seconds is not None), default=None)
            ready = self._selector.select(timeout)
            woke_at = time.monotonic()
            # With a turn of the loop: this process may have been stopped anywhere.
            overslept = (slept_at if timeout is None else woke_at - timeout) - self._awake_since
            self._awake_since = woke_at
            if ready or overslept > _OVERSLEPT or (wake_at is not None and woke_at >= wake_at):
                return ready, overslept

    def _counts_down(self) -> bool:
        """Whether a time runs that a stop of this process must not shorten."""
        return self._deadline is not None or any(
            seat.slot.ladder or (seat.process is not None and seat.post.timeout is not None)
            for seat in self._crew.seats
        )

    def _oversleep(self, seconds: float, now: float) -> None:
        """We were stopped (SIGSTOP, a frozen container): so, very likely, were the children."""
        if seconds > _OVERSLEPT:
            logger.warning("the master was stopped for %.1f s; all deadlines move by that", seconds)
        for seat in self._crew.seats:
            self._apply(seat, MasterSlept(seconds), now)
            seat.look_at = now
        self._not_before = now
        if self._deadline is not None:
            self._deadline += seconds

    def _next_time(self, now: float) -> float | None:
        """When something is due without anybody telling us. None: never; an idle master sleeps."""
        times: list[float | None] = [
            self._display.due,
            self._control.due if self._control else None,
            self._http.due if self._http else None,
            now + _LATE_LOGS if self._logs_are_late else None,
        ]
        for seat in self._crew.seats:
            slot = seat.slot
            times.append(seat.look_at)
            if slot.ladder:
                times.append(slot.ladder[0][0])
            if slot.state in RESTING:
                times.append(max(slot.due, self._bucket.ready_at(now)))
            if seat.process is not None:
                times.append(seat.process.stacks.due)
            if seat.worn:
                times.append(seat.recycle_at if seat.recycle_at > now else None)
        if self._deadline is not None:
            times.append(self._deadline)
        else:
            times.append(give_up_at(self._crew.slots, self._options.give_up_after))
            times.append(self._changes.due)
            times.append(self._watch.due if self._watch else None)
            times.append(self._herald.due(self._crew.seats, now) if self._herald else None)
        return min((at for at in times if at is not None), default=None)

    def _apply(self, seat: Seat, event: Event, now: float) -> None:
        before = seat.slot.state
        seat.slot, actions = step(seat.slot, event, now, self._rules)
        seat.carry_out(actions)
        if seat.slot.state is State.CONSUMING and before is not State.CONSUMING:
            seat.log_line(logging.INFO, "child_consuming")

    def _retire(self, seat: Seat, now: float) -> None:
        """Its child drains, and nobody takes its place."""
        seat.is_leaving = True
        self._apply(seat, StopAsked(), now)

    # Looking after children

    def _look_after(self, seat: Seat, now: float, is_time_to_look: bool) -> None:
        self._apply(seat, TimePassed(), now)
        process = seat.process
        if process is None:
            seat.look_at = None
            return
        if process.stacks.due is not None and now >= process.stacks.due:
            seat.log_stacks()
        if is_time_to_look and seat.look_at is not None:
            self._look_whether_it_hangs(seat, process, now)

    def _look_whether_it_hangs(self, seat: Seat, process: Process, now: float) -> None:
        if seat.slot.ladder or not seat.slot.booted or seat.slot.state is State.DRAINING:
            seat.look_at = None  # other deadlines are at work
            return
        verdict = hanging.look(
            self._limits(seat),
            in_hand=seat.record.in_hand,
            last_beat=seat.record.last_beat,
            not_before=max(self._not_before, process.started_at),
            now=now,
        )
        seat.look_at = verdict.look_at
        if verdict.hung is not None:
            seat.culprits = verdict.culprits
            in_flight = ",".join(verdict.culprits) or None
            seat.log_line(logging.ERROR, "child_hung", in_flight=in_flight, reason=verdict.hung.cause)
            self._apply(seat, verdict.hung, now)

    def _limits(self, seat: Seat) -> hanging.Limits:
        return hanging.Limits(
            timeout=seat.post.timeout,
            # A coroutine is told first, by asyncio; only what does not react to that is our business.
            patience=self._options.kill_after if seat.post.is_async else 0.0,
            hang_timeout=self._options.hang_timeout or None,
        )

    def _look_at_files(self, now: float) -> None:
        if self._watch is None:
            return
        self._watch.add(self._changes.directories)
        changed = self._watch.look(now)
        if changed:
            self._changes.reload(why=f"changed: {', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}")

    def _fork_next(self, now: float) -> None:
        """At most one: between two forks the loop looks at signals."""
        waiting = [seat for seat in self._crew.seats if seat.slot.state in RESTING and seat.slot.due <= now]
        if not waiting:
            return
        bucket = self._bucket.take(now)
        if bucket is None:
            return
        self._bucket = bucket
        seat = min(waiting, key=lambda seat: seat.slot.due)
        seat.record.clear()
        seat.culprits = ()
        seat.had_alert = False
        seat.worn = ""
        try:
            process = self._nursery.fork(seat.source, self._orders(seat), self._processes)
        except (OSError, HookFailed) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            self._crew.past[seat.slot.receiver].restarts[Cause.FORK] += 1
            self._apply(seat, ForkFailed(f"fork failed: {reason}", fraction()), now)
            logger.error(
                "%s cannot be forked: %s",
                seat.slot.name,
                reason,
                exc_info=error if isinstance(error, HookFailed) else None,
            )
            return
        seat.process = process
        self._hear(seat, process)
        self._apply(seat, Forked(process.pid), now)
        seat.log_line(logging.INFO, "child_start", n=seat.slot.restarts)

    @property
    def _processes(self) -> list[Process]:
        return [seat.process for seat in self._crew.seats if seat.process]

    def _fork_http(self, source: Source, orders: HttpOrders, given: tuple[int, ...]) -> Process:
        return self._nursery.fork(source, orders, self._processes, given)

    def _look_after_http(self, now: float) -> None:
        if self._http is not None:
            # What a reload has brought counts when it has come to stay.
            self._http.advance(now, None if self._changes.is_reloading else self._changes.source)

    def _send_alerts(self, now: float) -> None:
        if self._herald is not None:
            self._herald.look(self._crew.seats, now, partial(self._nursery.send_out, siblings=self._processes))

    def _orders(self, seat: Seat) -> Orders:
        beat_every = _SLOWEST_BEAT
        if self._options.hang_timeout:
            beat_every = min(beat_every, self._options.hang_timeout / _BEATS)
        return Orders(
            receiver=seat.slot.receiver,
            slot=seat.slot.name,
            master=self._nursery.master,
            record=seat.region,
            blame=self._crew.blame_region(seat.slot.receiver),
            orphan_patience=self._options.grace + self._options.kill_after,
            beat_every=beat_every,
            lifespan=self._options.lifespan,
            alerts=self._options.alerts,
        )

    def _hear(self, seat: Seat, process: Process) -> None:
        read = selectors.EVENT_READ
        self._selector.register(process.status_fd, read, partial(self._on_report, seat, process))
        self._selector.register(process.stacks.fd, read, partial(self._on_stacks, seat, process))
        if process.pidfd is not None:
            self._selector.register(process.pidfd, read, partial(self._on_death, seat, process))

    def _on_report(self, seat: Seat, process: Process) -> None:
        if seat.process is not process:
            return  # its death stood before this in the same turn
        now = time.monotonic()
        for report in process.reports():
            if isinstance(report, Worn):
                seat.worn = report.reason
            elif isinstance(report, Delayed):
                self._crew.note_delay(seat.slot.receiver, report.delay)
            else:
                self._apply(seat, report, now)
                seat.look_at = now
        if process.has_hung_up:
            self._forget(process.status_fd)  # readable for ever

    def _on_stacks(self, seat: Seat, process: Process) -> None:
        if seat.process is process:
            process.stacks.read(time.monotonic())
            if process.stacks.ended:
                self._forget(process.stacks.fd)

    def _on_death(self, seat: Seat, process: Process) -> None:
        ending = process.ending() if seat.process is process else None
        if ending is None:
            return
        self._on_report(seat, process)  # its last words: it may have booted before it died
        if not seat.slot.hung:
            process.stacks.last = ""  # what an operator has asked for does not tell why it died
        seat.log_stacks()
        now = time.monotonic()
        asked = seat.slot.state is State.DRAINING
        in_flight = seat.in_flight
        seat.had_alert = any(has_id_of_alert(event.id) for event in seat.record.in_hand)
        last = LastExit(ending=ending, at=time.time(), in_flight=in_flight)
        cause = seat.replaced_for if asked else cause_of(seat.slot, ending, in_hand=in_flight is not None)
        if cause:  # else it leaves for good
            self._crew.past[seat.slot.receiver].restarts[cause] += 1
        if not asked:
            self._blame(seat, process, last)
        self._apply(seat, Exited(exit=last, spread=fraction()), now)
        seat.process = None
        seat.look_at = None
        for fd in (process.status_fd, process.stacks.fd, process.pidfd):
            self._forget(fd)
        process.close(max(0.0, self._logs_until - now))
        is_expected = (asked and not seat.slot.cut) or (ending.code == ChildExit.RECYCLED and in_flight is None)
        seat.log_line(
            logging.INFO if is_expected else logging.WARNING,
            "child_exit",
            pid=process.pid,
            signal=None if ending.signal is None else signal_name(ending.signal),
            code=ending.code,
            in_flight=in_flight,
            n=None if asked else seat.slot.failures,
            delay=max(0.0, seat.slot.due - now) if seat.slot.state in RESTING else None,
            reason=seat.slot.reason or None,
        )

    def _blame(self, seat: Seat, process: Process, last: LastExit) -> None:
        """Whoever was in hand when it died may be why."""
        in_hand = [event.id for event in seat.record.in_hand]
        hung = seat.slot.hung
        if last.ending.code == ChildExit.FORCED and not hung:
            return  # somebody has told it to leave
        culprits = [event for event in in_hand if event in seat.culprits] if hung else in_hand
        if culprits:
            blame = self._crew.blame(seat.slot.receiver)
            cause = hung or str(last.ending)
            blame.note(culprits, cause, process.stacks.last, self._options.max_event_crashes)

    def _forget(self, fd: int | None) -> None:
        if fd is not None and fd in self._selector.get_map():
            self._selector.unregister(fd)

    # Signals

    def _on_signals(self, numbers: Iterable[int]) -> None:
        for number in numbers:
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
                    for seat in self._crew.seats:
                        if seat.process:
                            seat.process.send(signal.SIGUSR2)
                    if self._http is not None:
                        self._http.send(signal.SIGUSR2)
                case signal.SIGHUP:
                    if self._deadline is None:
                        self._changes.reload()
                case signal.SIGTTIN | signal.SIGTTOU:
                    if self._deadline is None:
                        self._operating.more_or_fewer(1 if number == signal.SIGTTIN else -1)
                case signal.SIGCHLD:
                    self._reap()

    def _reap(self) -> None:
        self._changes.reap()
        by_pid = {seat.process.pid: seat for seat in self._crew.seats if seat.process is not None}

        def ours(pid: int) -> bool:
            seat = by_pid.get(pid)
            if seat is not None and seat.process is not None:
                self._on_death(seat, seat.process)
            if self._http is not None and self._http.owns(pid):
                return True
            return seat is not None or any(loader.pid == pid for loader in self._changes.loaders)

        strangers.reap(ours)

    # The end

    def _show(self, now: float) -> None:
        draining = (
            None if self._deadline is None else Draining(deadline=self._deadline, moves=partial(self._moves, now))
        )
        self._display.show(
            self._crew.shown if draining is None else self._crew.slots,
            now,
            reloading=self._changes.reloading,
            draining=draining,
        )

    def _moves(self, now: float) -> bool:
        """Whether somebody works on in this drain."""
        return any(
            hanging.works_on(
                self._limits(seat),
                in_hand=seat.record.in_hand,
                last_beat=seat.record.last_beat,
                not_before=max(self._not_before, seat.process.started_at),
                now=now,
            )
            for seat in self._crew.seats
            if seat.process is not None
        )

    def _stop(self, event: StopAsked | ForceAsked, number: int | None, reason: str | None = None) -> None:
        """Idempotent; force only ever shortens it."""
        now = time.monotonic()
        patience = self._options.kill_after + _SLACK
        if self._deadline is None:
            self._display.stopping()
            self._changes.cancel()
            name = None if number is None else signal_name(number)
            living = sum(seat.process is not None for seat in self._crew.seats)
            lines.write(logger, logging.INFO, "stop_begin", signal=name, reason=reason, n=living)
            self._deadline = now + self._options.grace + patience
        if isinstance(event, ForceAsked):
            logger.warning("forced: whoever has an event in hand is cut, and the event will come again")
            self._deadline = min(self._deadline, now + patience)
        for seat in self._crew.seats:
            self._apply(seat, event, now)

    def _check_giving_up(self, now: float) -> None:
        at = give_up_at(self._crew.slots, self._options.give_up_after)
        if at is not None and now >= at:
            self._gave_up = True
            reason = f"all receivers have failed for {self._options.give_up_after:g} s"
            logger.error("%s: giving up; the last reasons: %s", reason, status_line(self._crew.slots, stopping=False))
            self._stop(StopAsked(), None, reason)

    def _has_ended(self, now: float) -> bool:
        assert self._deadline is not None
        return now >= self._deadline or all(slot.state is State.STOPPED for slot in self._crew.slots)

    def _end(self) -> int:
        slots = self._crew.slots
        left = [slot.name for slot in slots if slot.state is not State.STOPPED]
        if left:
            logger.error("not even SIGKILL has ended %s; leaving without", ", ".join(left))
        cut = [slot.name for slot in slots if slot.cut or slot.name in left]
        code = MasterExit.ALL_FAILING if self._gave_up else MasterExit.FORCED if cut else MasterExit.CLEAN
        reason = f"cut: {', '.join(cut)}" if cut else None
        level = logging.WARNING if cut else logging.INFO
        lines.write(logger, level, "drain_end", code=int(code), n=len(cut), reason=reason)
        return code

    def _close(self) -> None:
        logs_until = time.monotonic() + _LOG_TIMEOUT
        if self._http is not None:
            self._http.tell_to_leave()  # the last to go: it has answered during the drain
        for seat in self._crew.seats:
            if seat.process:
                seat.process.close(max(0.0, logs_until - time.monotonic()))
        if self._control is not None:
            self._control.close()
        if self._http is not None:
            self._http.close()
        self._changes.close_descriptors()
        self._nursery.close()
        ours = [loader.pid for loader in self._changes.loaders]
        if self._herald is not None:
            ours += self._herald.pids
            self._herald.close()
        left = strangers.end_all(_STRANGERS, ours=ours)
        if left:
            logger.info("ended what handlers have left behind: %s", ", ".join(map(str, left)))
        self._selector.close()
        self._display.close()
        finish_in_master(max(0.0, logs_until - time.monotonic()))
        self._log.close(max(_LOG_PATIENCE, logs_until - time.monotonic()))
