"""Sending from any thread or coroutine: hands messages to a line and waits for their confirms."""

from __future__ import annotations

import asyncio
import atexit
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from domain_events.errors import ConnectionFailed, SendError, SendTimeout
from domain_events.settings import Broker
from domain_events.transport.line import Line, Message, Receipt, close_all

GOODBYE_TIMEOUT = 2.0
"""Seconds that closing waits: for what others are sending, and for the broker."""

VERDICT_TIMEOUT = 1.0
"""Seconds that the I/O thread has, when the time is over, to say what became of an event."""


class ConfirmedSender:
    """One connection to the broker, shared by all threads and event loops of a process.

    Connects at the first message, and again when it was lost. After a fork the child begins anew: the inherited
    connection belongs to the parent and is left alone.
    """

    def __init__(self, brokers: Sequence[Broker], exchange: str) -> None:
        self._exchange = exchange
        self._last = Line(brokers, exchange)  # or one before: each knows its successor
        self._new_line = partial(Line, brokers, exchange)

    def send(self, messages: Sequence[Message], timeout: float) -> list[SendError | None]:
        """For each message: None when the broker confirmed it, else why not. Returns within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # A bare lock wakes up its waiter in one system call; an Event takes several.
        done = threading.Lock()
        done.acquire()
        receipt = Receipt(self._exchange, messages, done.release)
        line = self._submit(receipt)
        try:
            if not done.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
                line.withdraw(receipt, timeout)
                done.acquire(timeout=VERDICT_TIMEOUT)
        except BaseException:
            line.withdraw(receipt, timeout)  # nobody waits any more: it shall not be sent later
            raise
        return receipt.errors(partial(_no_verdict, timeout))

    async def send_async(self, messages: Sequence[Message], timeout: float) -> list[SendError | None]:
        """As `send`, for a coroutine."""
        deadline = time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, done)

        receipt = Receipt(self._exchange, messages, tell)
        line = self._submit(receipt)
        try:
            await asyncio.wait([done], timeout=max(0.0, deadline - time.monotonic()))
            if not done.done():
                line.withdraw(receipt, timeout)
                await asyncio.wait([done], timeout=VERDICT_TIMEOUT)
        except BaseException:
            line.withdraw(receipt, timeout)
            raise
        return receipt.errors(partial(_no_verdict, timeout))

    def close(self) -> None:
        """Say goodbye to the broker, when all is settled that others are sending. The next message connects again."""
        line: Line | None = self._last
        while line is not None and line.is_over:
            line = line.next
        if line is not None and not sys.is_finalizing():
            line.close()
            line.join(GOODBYE_TIMEOUT)

    def _submit(self, receipt: Receipt) -> Line:
        if sys.is_finalizing():
            # The I/O thread has been stopped for ever: Python lets no daemon thread go on at its very end.
            raise ConnectionFailed("not sent: the interpreter is ending")
        while True:
            line = self._line()
            if not line.is_mine and line.begin():
                if line.submit(receipt):
                    return line
                continue
            # This thread would wait for itself: it is the I/O thread, in which the garbage collector has come upon a
            # finalizer that sends; or it is about to begin the line, and a signal handler has interrupted it.
            line = self._new_line()
            line.begin()
            if line.submit(receipt):
                line.close()  # as soon as this is settled
                return line

    def _line(self) -> Line:
        line = self._last
        while line.is_over:
            line = line.successor()
        self._last = line
        return line


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _no_verdict(timeout: float) -> SendTimeout:
    return SendTimeout(f"no confirm within {timeout:g} s, and the I/O thread does not answer")


def _close_all() -> None:
    close_all(GOODBYE_TIMEOUT)


atexit.register(_close_all)
