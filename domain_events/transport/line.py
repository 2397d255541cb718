"""One I/O thread with its connection to the broker, and those who wait for its confirms.

Takes no lock of its own: whoever sends may be interrupted at any point by a signal handler, or by a finalizer that the
garbage collector runs, and that may send as well.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from pika import BasicProperties

from domain_events.errors import BrokerError, ConnectionFailed, SendError
from domain_events.settings import Broker
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication, State
from domain_events.transport.publisher import Publisher

logger = logging.getLogger(__name__)

SUSPICIOUS_SILENCE = 0.3
"""Seconds. A connection that has answered nothing for so long is given up together with the event: the next one
shall not wait for it too. Not sooner, for others send over it, and get duplicates then; and not before an answer can
come at all: how far away the broker is, is seen from the time that the login took."""


GOODBYE_TIMEOUT = 2.0
"""Seconds that closing waits: for what others are sending, and for the broker."""


class NoThread(ConnectionFailed):
    """Python starts no thread any more, though all else works: 3.12, from the end of the main thread on."""


class Message(NamedTuple):
    routing_key: str
    properties: BasicProperties
    body: bytes
    mandatory: bool = False


class Receipt:
    """What became of some messages. Written by the I/O thread, which calls `told` when all is known."""

    def __init__(self, exchange: str, messages: Sequence[Message], told: Callable[[], object]) -> None:
        done = self._on_done  # one for all: no object more for each
        self.publications = [Publication(exchange, *message, done) for message in messages]
        self.settled: Callable[[Receipt], None] = _nobody
        self.line: Line | None = None
        """That may have it: written down first, for a signal handler may raise at any point of submitting it."""
        self._told = told
        self._left = len(messages)

    def _on_done(self, _error: BrokerError | None) -> None:
        self._left -= 1
        if not self._left:
            self.settled(self)
            # Who is told often keeps the receipt: without the way back no cycle is left to the garbage collector.
            told, self._told = self._told, _nobody
            told()

    def undone(self) -> list[Publication]:
        return [publication for publication in self.publications if publication.state is not State.DONE]

    def fail(self, judge: Callable[[Publication], SendError]) -> None:
        for publication in self.undone():
            publication.finish(judge(publication))

    def errors(self, otherwise: Callable[[], SendError]) -> list[SendError | None]:
        """One for each message, None when it is confirmed; `otherwise` makes it where nothing is known."""
        done = State.DONE
        return [
            otherwise()
            if publication.state is not done
            else error
            if (error := publication.error) is None or isinstance(error, SendError)
            else SendError(str(error))
            for publication in self.publications
        ]


def _nobody(*_: Receipt) -> None:
    """Wants to know, or to know it again."""


class Line:
    """Begins once, takes receipts until it is over, and leaves the broker when the last of them is settled.

    All but the private methods may be called in any thread.
    """

    def __init__(self, brokers: Sequence[Broker], exchange: str) -> None:
        self._brokers = brokers
        self._exchange = exchange
        self._process = os.getpid()
        self._over = False
        self._next: dict[str, Line] = {}
        self._beginner: dict[str, tuple[int, object]] = {}
        self._has_begun = False
        self._running: tuple[IOThread, Publisher] | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._turn = 0
        self._called_in = -1  # the turn of the last call for `_work` that has been made
        self._receipts: dict[Receipt, None] = {}
        self._fresh: list[Publication] = []
        self._is_leaving = False
        self._at_work: set[int] = set()
        """Threads that do the I/O thread's work themselves, or are about to."""

    @property
    def is_over(self) -> bool:
        # One that another thread was just about to begin, when this process was forked, would never begin.
        return self._over or self._process != os.getpid()

    @property
    def is_mine(self) -> bool:
        """Whether this is the thread that would have to do the work."""
        if self._running is None:
            return False
        return self._running[0].is_current or threading.get_ident() in self._at_work

    @property
    def next(self) -> Line | None:
        return self._next.get("line")

    def successor(self) -> Line:
        """The line to use when this one is over: the same one for all who ask."""
        # setdefault() is one step: nobody comes in between.
        return self.next or self._next.setdefault("line", Line(self._brokers, self._exchange))

    def begin(self) -> bool:
        """Once. False when this very thread is in the middle of it, further up in its stack.

        Raises ConnectionFailed when there is no thread or descriptor left; NoThread when that is for `send_here`.
        """
        if self._has_begun:
            return True
        me = (threading.get_ident(), object())
        beginner = self._beginner.setdefault("me", me)
        if beginner is not me:
            return self._has_begun or beginner[0] != me[0]
        io: IOThread | None = None
        try:
            io = IOThread("de-sender", self._on_crash)
            self._prepare(io)
            io.call(self._work)
            io.start()
            self._has_begun = True
        except BaseException as error:
            self._over = True
            if io is not None and io.has_started:
                # A signal handler has interrupted us. Others may have submitted something: that is done still.
                self._call(self._leave_when_idle)
                raise
            problem = f"not sent: cannot start the thread that sends: {error}"
            self._running = None
            _lines.pop(self, None)
            self._end(lambda _: ConnectionFailed(problem))
            if io is not None:
                io.loop.close()
            if isinstance(error, RuntimeError) and "at interpreter shutdown" in str(error):
                raise NoThread(problem) from error
            # No descriptor or no thread left; and not what a handler says that interrupted us.
            if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, BrokerError):
                raise ConnectionFailed(problem) from error
            raise
        return True

    def send_here(self, receipt: Receipt, timeout: float) -> None:
        """Instead of `begin`, for one receipt: the calling thread does the work, then leaves the broker.

        After `timeout` seconds what is not confirmed is settled. Raises what a signal handler raises meanwhile.
        """
        io = IOThread("de-sender", self._on_crash)
        publisher = self._prepare(io)
        self._has_begun = True
        try:
            self.submit(receipt)
            self.close()
            io.later(timeout, partial(self._withdraw, receipt, timeout))
            io.later(timeout + GOODBYE_TIMEOUT, io.loop.stop)
            io.work_here()
        finally:
            _lines.pop(self, None)
            publisher.forget()

    def submit(self, receipt: Receipt) -> bool:
        """False when the line takes nothing any more."""
        receipt.line = self
        receipt.settled = self._on_settled
        self._receipts[receipt] = None
        if self.is_over:  # read after the receipt was written down: one of the two sees the other
            self._on_settled(receipt)
            return False
        if not self._publish_here(receipt):
            self._call(partial(self._publish, receipt))
        return True

    def withdraw(self, receipt: Receipt, timeout: float) -> None:
        """Settle what is not confirmed, in the I/O thread: there, and only there, it is known what went out."""
        self._call(partial(self._withdraw, receipt, timeout))

    def close(self) -> None:
        """Take nothing any more; leave the broker when all is settled. Does not wait."""
        self._over = True
        self._call(self._leave_when_idle)

    def join(self, timeout: float) -> None:
        """Wait until it has left the broker."""
        if self._running is not None and not self.is_mine:
            self._running[0].join(timeout)

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent, without a word to the broker."""
        running, self._running = self._running, None
        self._end(lambda _: SendError("this process was forked while the event was sent; the parent knows more"))
        if running is not None:
            io, publisher = running
            publisher.forget()
            _left_by_parent.append(io)

    def _prepare(self, io: IOThread) -> Publisher:
        name = f"sender {os.getpid()}"
        publisher = Publisher(io, self._brokers, name=name, exchange=self._exchange, asks_for_proof=True)
        self._running = (io, publisher)
        _lines[self] = None
        return publisher

    def _publish_here(self, receipt: Receipt) -> bool:
        """When nobody else sends: to have it written by the I/O thread costs a switch of threads, and joins nothing.

        A signal handler or a finalizer that sends meanwhile would wait for the turn that its own thread has taken: it
        is told by `is_mine`, and takes another line.
        """
        running = self._running
        if running is None or not self._has_begun:
            return False
        io, publisher = running
        if not (io.shares_turns and publisher.is_idle):
            return False
        me = threading.get_ident()
        try:
            self._at_work.add(me)
            if io.turn.locked():
                return False
            # Not acquire(blocking=False) and a release in `finally`: what a signal handler raises between the two would
            # leave the turn taken for ever. Whoever has taken it meanwhile does not keep it long.
            with io.turn:
                if self._inbox or self._fresh or not publisher.is_idle:
                    return False  # it must not overtake what waits
                try:
                    publisher.submit_all(receipt.publications)
                except BaseException as error:
                    # A signal handler has raised in the middle of it, and nobody knows what is half done.
                    self._on_crash(error)
                    io.call(io.loop.stop)
                    raise
        finally:
            self._at_work.discard(me)
        return True

    def _call(self, function: Callable[[], None]) -> None:
        self._inbox.append(function)
        running = self._running
        turn = self._turn
        # Not running: it is done as soon as the line begins. Called for in this turn: the next one is sure to come, and
        # begins after `function` was put in. Written down after the call, for a signal handler may come in between.
        if running is not None and self._called_in != turn:
            running[0].call(self._work)
            self._called_in = turn

    def _work(self) -> None:
        self._turn += 1  # before it is looked into the inbox: what is put in later makes a call of its own
        while self._inbox:
            self._inbox.popleft()()
        if self._fresh and self._running is not None:
            # Of all receipts together: they go out in one write.
            fresh, self._fresh = self._fresh, []
            self._running[1].submit_all(fresh)

    def _publish(self, receipt: Receipt) -> None:
        self._fresh += receipt.publications

    def _withdraw(self, receipt: Receipt, timeout: float) -> None:
        assert self._running is not None
        publisher = self._running[1]
        undone = receipt.undone()
        verdicts = [publisher.verdict(publication, timeout) for publication in undone]
        for publication, verdict in zip(undone, verdicts, strict=True):
            publication.finish(verdict)
        publisher.forget_done(len(undone))
        if publisher.silence > max(SUSPICIOUS_SILENCE, publisher.login_time):
            publisher.distrust()

    def _on_settled(self, receipt: Receipt) -> None:
        self._receipts.pop(receipt, None)
        if self._over and not self._receipts:
            self._call(self._leave_when_idle)

    def _leave_when_idle(self) -> None:
        if self._over and not self._receipts and not self._is_leaving and self._running is not None:
            self._is_leaving = True
            io, publisher = self._running
            publisher.close(partial(self._on_left, io))

    def _on_left(self, io: IOThread) -> None:
        _lines.pop(self, None)
        io.loop.stop()

    def _on_crash(self, error: BaseException) -> None:
        logger.error("the sender's I/O thread failed", exc_info=error)
        if self._running is not None:
            self._running[1].forget()
        _lines.pop(self, None)
        reason = f"the sender's I/O thread failed: {type(error).__name__}"

        def judge(publication: Publication) -> SendError:
            if publication.attempts:
                return SendError(f"{reason}; the event may have arrived")
            return ConnectionFailed(f"not sent: {reason}")

        self._end(judge)

    def _end(self, judge: Callable[[Publication], SendError]) -> None:
        self._over = True
        for receipt in list(self._receipts):
            receipt.fail(judge)


def close_all(timeout: float) -> None:
    """Every line of this process: what is being sent may end, within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    lines = list(_lines)
    for line in lines:
        line.close()
    for line in lines:
        line.join(max(0.0, deadline - time.monotonic()))


def _forget_all() -> None:
    for line in list(_lines):
        line.forget()
    _lines.clear()


_lines: dict[Line, None] = {}
"""Those that have begun and not left."""
_left_by_parent: list[IOThread] = []
"""Loops of the parent: never touched again, but kept, for their clean-up would close descriptors by number."""

os.register_at_fork(after_in_child=_forget_all)
