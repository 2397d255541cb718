"""Sending from any thread or coroutine: hands messages to a line and waits for their confirms."""

from __future__ import annotations

import asyncio
import atexit
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from domain_events.errors import ConnectionFailed, SendError, SendTimeout
from domain_events.settings import Broker
from domain_events.transport.line import GOODBYE_TIMEOUT, Line, Message, NoThread, Receipt, close_all
from domain_events.transport.publication import Publication

SLICE = 1000
"""Messages that are submitted together: the broker has them while the next ones are put together."""

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
        batch = _Batch(self._exchange, messages, done.release)
        try:
            batch.submit(self._submit)
            if not done.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
                batch.withdraw(timeout)
                done.acquire(timeout=VERDICT_TIMEOUT)
        except NoThread:
            return self._send_here(messages, timeout)
        except BaseException:
            batch.withdraw(timeout)  # nobody waits any more: it shall not be sent later
            raise
        return batch.errors(partial(_no_verdict, timeout))

    async def send_async(self, messages: Sequence[Message], timeout: float) -> list[SendError | None]:
        """As `send`, for a coroutine."""
        deadline = time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, done)

        batch = _Batch(self._exchange, messages, tell)
        try:
            batch.submit(self._submit)
            await asyncio.wait([done], timeout=max(0.0, deadline - time.monotonic()))
            if not done.done():
                batch.withdraw(timeout)
                await asyncio.wait([done], timeout=VERDICT_TIMEOUT)
        except NoThread:
            return self._send_here(messages, timeout)  # the other coroutines wait, at the end of the program
        except BaseException:
            batch.withdraw(timeout)
            raise
        return batch.errors(partial(_no_verdict, timeout))

    def close(self) -> None:
        """Say goodbye to the broker, when all is settled that others are sending. The next message connects again."""
        line: Line | None = self._last
        while line is not None and line.is_over:
            line = line.next
        if line is not None and not sys.is_finalizing():
            line.close()
            line.join(GOODBYE_TIMEOUT)

    def _submit(self, receipt: Receipt) -> None:
        if sys.is_finalizing():
            # The I/O thread has been stopped for ever: Python lets no daemon thread go on at its very end.
            raise ConnectionFailed("not sent: the interpreter is ending")
        while True:
            line = self._line()
            if not line.is_mine and line.begin():
                if line.submit(receipt):
                    return
                continue
            # This thread would wait for itself: it is the I/O thread, in which the garbage collector has come upon a
            # finalizer that sends; or it is about to begin the line, and a signal handler has interrupted it.
            line = self._new_line()
            line.begin()
            if line.submit(receipt):
                line.close()  # as soon as this is settled
                return

    def _send_here(self, messages: Sequence[Message], timeout: float) -> list[SendError | None]:
        receipt = Receipt(self._exchange, messages, lambda: None)
        self._new_line().send_here(receipt, timeout)
        return receipt.errors(partial(_no_verdict, timeout))

    def _line(self) -> Line:
        line = self._last
        while line.is_over:
            line = line.successor()
        self._last = line
        return line


class _Batch:
    """The messages of one call, in slices with a receipt each."""

    def __init__(self, exchange: str, messages: Sequence[Message], told: Callable[[], object]) -> None:
        """`told` is called once, when all is known."""
        self._exchange = exchange
        self._messages = messages
        self._told = told
        self._slices = -(-len(messages) // SLICE)
        self._ended = count(1)  # one step to take a number, also for the threads of several lines
        self._receipts: list[Receipt] = []

    def submit(self, submit: Callable[[Receipt], None]) -> None:
        for begin in range(0, len(self._messages), SLICE):
            receipt = Receipt(self._exchange, self._messages[begin : begin + SLICE], self._on_slice)
            self._receipts.append(receipt)  # first: who is interrupted in the middle withdraws it
            try:
                submit(receipt)
            except ConnectionFailed as error:
                if not begin:
                    raise
                # The line of the slices before has died, and no other one can begin: only this much is not sent.
                receipt.fail(partial(_as_one_of_many, str(error)))

    def withdraw(self, timeout: float) -> None:
        for receipt in self._receipts:
            if receipt.line is not None:
                receipt.line.withdraw(receipt, timeout)

    def errors(self, otherwise: Callable[[], SendError]) -> list[SendError | None]:
        """One for each message; see `Receipt.errors`."""
        return [error for receipt in self._receipts for error in receipt.errors(otherwise)]

    def _on_slice(self) -> None:
        if next(self._ended) == self._slices:
            self._told()


def _as_one_of_many(reason: str, _publication: Publication) -> SendError:
    return ConnectionFailed(reason)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _no_verdict(timeout: float) -> SendTimeout:
    return SendTimeout(f"no confirm within {timeout:g} s, and the I/O thread does not answer")


def _close_all() -> None:
    close_all(GOODBYE_TIMEOUT)


atexit.register(_close_all)
