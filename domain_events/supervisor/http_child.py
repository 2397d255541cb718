"""The child that serves HTTP, as the master keeps it: started, restarted, replaced after a reload.

Nothing waits for it, and it counts for nothing: not for READY, not for exit codes, not for giving up.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol

from domain_events.jitter import fraction
from domain_events.lifecycle import HookFailed
from domain_events.supervisor import lines
from domain_events.supervisor.addresses import Place, port_of
from domain_events.supervisor.conversation import Answer, Conversation
from domain_events.supervisor.exits import ChildExit, signal_name
from domain_events.supervisor.nursery import Source
from domain_events.supervisor.posts import HttpOrders
from domain_events.supervisor.process import Process
from domain_events.supervisor.protocol import Failed, OperatorExit
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.slots import Booted

logger = logging.getLogger(__package__)

SLOT = "http"
_PATIENCE = 3.0  # seconds from SIGTERM to SIGKILL
_LAST_PATIENCE = 1.0  # the same, at the end of the master


class Fork(Protocol):
    def __call__(self, source: Source, orders: HttpOrders, given: tuple[int, ...]) -> Process:
        """Raises OSError, or HookFailed."""


class HttpChild:
    """Belongs to the master's loop. The master itself listens, so that a port stays ours and nobody is refused while
    one child takes over from another: who comes then waits for a moment."""

    def __init__(
        self,
        place: Place,
        selector: selectors.BaseSelector,
        answer: Answer,
        fork: Fork,
        *,
        backoff: Backoff,
        stable_after: float,
    ) -> None:
        """`stable_after`: seconds of a life after which its end is no reason to wait."""
        self._place = place
        self._selector = selector
        self._answer = answer
        self._fork = fork
        self._backoff = backoff
        self._stable_after = stable_after
        self._listener: socket.socket | None = None
        self._conversations: list[Conversation] = []
        self._process: Process | None = None
        self._source: Source | None = None  # of its code
        self._due = 0.0  # of the next start
        self._failures = 0  # in a row
        self._is_told = False  # to leave
        self._kill_at: float | None = None  # if it has not left by then
        self._is_over = False

    @property
    def due(self) -> float | None:
        """When `advance` is to be called at the latest; None: not because of time."""
        if self._process is None:
            return None if self._is_over else self._due
        times = [self._kill_at, self._process.stacks.due, *(each.deadline for each in self._conversations)]
        return min((at for at in times if at is not None), default=None)

    def advance(self, now: float, source: Source | None) -> None:
        """To be called in each turn of the loop. `source`: what there should be a child of; None: as before."""
        process = self._process
        source = source or self._source
        if process is None:
            if source is not None and now >= self._due and not self._is_over:
                self._start(now, source)
            return
        for conversation in list(self._conversations):
            conversation.expire(now)
        if process.stacks.due is not None and now >= process.stacks.due:
            self._log_stacks(process)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            process.send(signal.SIGKILL)
        elif source is not self._source and not self._is_told:
            self._is_told = True
            self._end(process, now)

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send(number)

    def owns(self, pid: int) -> bool:
        """Whether it is its process, which may have ended: then this sees to it."""
        if self._process is None or self._process.pid != pid:
            return False
        self._on_death(self._process)
        return True

    def tell_to_leave(self) -> None:
        """The master ends. `close` follows."""
        self._is_over = True
        if self._process is not None and not self._is_told:
            self._is_told = True
            self._end(self._process, time.monotonic())

    def close(self) -> None:
        """At the very end of the master: it waits, but not for long."""
        self.tell_to_leave()
        process = self._process
        if process is not None:
            deadline = time.monotonic() + _LAST_PATIENCE
            while (ending := process.ending()) is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if ending is None:
                process.send(signal.SIGKILL)
            self._forget(process)
            process.close(0.1)
        self._close_conversations()
        if self._listener is not None:
            self._listener.close()

    def close_descriptors(self) -> None:
        """In a child of the master. Says nothing to the selector: the kernel's part of it is shared with the master."""
        if self._listener is not None:
            self._listener.close()
        for conversation in self._conversations:
            conversation.connection.close()
        if self._process is not None:
            self._process.close_descriptors()

    # Its start

    def _start(self, now: float, source: Source) -> None:
        self._source = source
        try:
            if self._listener is None:
                self._listener = self._place.listen()
            process = self._forked(source, self._listener)
        except (OSError, HookFailed) as error:
            self._failures += 1
            delay = self._wait(now)
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            what = "it cannot be bound" if self._listener is None else "no process for it"
            address = str(self._place) if self._listener is None else self._address
            text = f"{what}: {reason}"
            lines.write(logger, logging.ERROR, "http_failed", address=address, delay=delay, reason=text)
            return
        self._process = process
        self._is_told = False
        self._kill_at = None
        read = selectors.EVENT_READ
        self._selector.register(process.status_fd, read, partial(self._on_report, process))
        self._selector.register(process.stacks.fd, read, partial(self._on_stacks, process))
        if process.pidfd is not None:
            self._selector.register(process.pidfd, read, partial(self._on_death, process))
        self._log_line(logging.INFO, "http_start", process, address=self._address)

    def _forked(self, source: Source, listener: socket.socket) -> Process:
        orders = HttpOrders(slot=SLOT, master=os.getpid(), address=self._address)
        with ExitStack() as theirs, ExitStack() as undo:
            undo.callback(self._close_conversations)
            given = [theirs.enter_context(listener.dup())]
            for name in ("asking", "acting"):
                ours, its = socket.socketpair()
                given.append(theirs.enter_context(its))
                ours.setblocking(False)
                conversation = Conversation(
                    ours,
                    f"the page ({name})",
                    selector=self._selector,
                    answer=self._answer,
                    clock=time.monotonic,
                    forget=self._conversation_ended,
                    patience=None,
                )
                self._conversations.append(conversation)
                conversation.begin()
            process = self._fork(source, orders, tuple(each.fileno() for each in given))
            undo.pop_all()
        return process

    @property
    def _address(self) -> str:
        """With the port that it has become, where any would do."""
        if self._listener is None or self._place.port:
            return str(self._place)
        return str(self._place).removesuffix("0") + str(port_of(self._listener))

    # Its life

    def _on_report(self, process: Process) -> None:
        if self._process is not process:
            return  # its death stood before this in the same turn
        for report in process.reports():
            if isinstance(report, Booted):
                self._log_line(logging.INFO, "http_serving", process, address=self._address)
        if process.has_hung_up:
            self._unregister(process.status_fd)  # readable for ever

    def _on_stacks(self, process: Process) -> None:
        if self._process is process:
            process.stacks.read(time.monotonic())
            if process.stacks.ended:
                self._unregister(process.stacks.fd)

    def _log_stacks(self, process: Process) -> None:
        process.stacks.read(time.monotonic())
        if text := process.stacks.take():
            logger.warning("stacks of %s (pid %d):\n%s", SLOT, process.pid, text)

    def _conversation_ended(self, conversation: Conversation) -> None:
        """It has hung up, or does not read our replies: without us it is of no use."""
        self._conversations.remove(conversation)
        if self._process is not None:
            self._end(self._process, time.monotonic())

    # Its end

    def _end(self, process: Process, now: float) -> None:
        if self._kill_at is None:
            self._kill_at = now + _PATIENCE
            process.send(signal.SIGTERM)
            process.wake()

    def _on_death(self, process: Process) -> None:
        ending = process.ending() if self._process is process else None
        if ending is None:
            return
        self._on_report(process)  # its last words
        self._log_stacks(process)
        now = time.monotonic()
        asked = self._is_told
        self._failures = 0 if asked or now - process.started_at >= self._stable_after else self._failures + 1
        delay = self._wait(now)
        self._process = None
        self._forget(process)
        process.close(0.0)
        self._close_conversations()
        self._log_line(
            logging.INFO if asked and ending.code == ChildExit.DRAINED else logging.WARNING,
            "http_exit",
            process,
            signal=None if ending.signal is None else signal_name(ending.signal),
            code=ending.code,
            delay=None if asked else delay,
        )

    def _wait(self, now: float) -> float:
        delay = self._backoff.delay(self._failures, fraction()) if self._failures else 0.0
        self._due = now + delay
        return delay

    def _close_conversations(self) -> None:
        for conversation in list(self._conversations):
            conversation.leave_with(Failed("the master lets you go", OperatorExit.FAILED))

    def _forget(self, process: Process) -> None:
        for fd in (process.status_fd, process.stacks.fd, process.pidfd):
            self._unregister(fd)

    def _unregister(self, fd: int | None) -> None:
        if fd is not None:
            with suppress(KeyError):
                self._selector.unregister(fd)

    def _log_line(self, level: int, event: str, process: Process, **fields: lines.Value) -> None:
        lines.write(logger, level, event, slot=SLOT, pid=process.pid, **fields)
