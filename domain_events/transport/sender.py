"""Sending from any thread: hands messages to an I/O thread and waits for their confirms."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pika import BasicProperties

from domain_events.errors import BrokerError, ConnectionFailed, SendError, SendTimeout
from domain_events.settings import Broker
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication, State
from domain_events.transport.publisher import Publisher

logger = logging.getLogger(__name__)

GOODBYE_TIMEOUT = 2.0
"""Seconds that closing waits for the broker."""


SUSPICIOUS_SILENCE = 0.3
"""Seconds. A connection that has answered nothing for so long is given up together with the event: the next one
shall not wait for it too. Not sooner, for others send over it, and get duplicates then; and not before an answer can
come at all: how far away the broker is, is seen from the time that the login took."""


@dataclass(frozen=True, slots=True)
class Message:
    routing_key: str
    properties: BasicProperties
    body: bytes
    mandatory: bool = False


class ConfirmedSender:
    """One connection to the broker, shared by all threads of a process.

    Connects at the first message, and again when it was lost. After a fork the child begins anew: the inherited
    connection belongs to the parent and is left alone.
    """

    def __init__(self, brokers: Sequence[Broker], exchange: str) -> None:
        self._brokers = brokers
        self._exchange = exchange
        self._lock = threading.Lock()
        self._running: tuple[IOThread, Publisher] | None = None
        _senders.add(self)

    def send(self, messages: Sequence[Message], timeout: float) -> list[SendError | None]:
        """For each message: None when the broker confirmed it, else why not. Returns within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        io, publisher = self._start()
        receipt = _Receipt(len(messages))
        publications = [
            Publication(
                exchange=self._exchange,
                routing_key=message.routing_key,
                properties=message.properties,
                body=message.body,
                mandatory=message.mandatory,
                done=partial(receipt.note, index),
            )
            for index, message in enumerate(messages)
        ]

        def submit() -> None:
            for publication in publications:
                publisher.submit(publication)

        io.call(submit)
        if not receipt.wait(max(0.0, deadline - time.monotonic())):
            self._give_up(io, publisher, publications, receipt, timeout)
        return [None if error is None else _as_send_error(error) for error in receipt.errors()]

    def close(self) -> None:
        """Say goodbye to the broker. The next message connects again."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        io, publisher = running
        closed = threading.Event()
        io.call(lambda: publisher.close(closed.set))
        closed.wait(GOODBYE_TIMEOUT)
        io.stop(GOODBYE_TIMEOUT)

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent, without a word to the broker."""
        running, self._running = self._running, None
        self._lock = threading.Lock()  # a thread of the parent may have held it at the fork
        if running is not None:
            io, publisher = running
            publisher.forget()
            _left_by_parent.append(io)

    def _start(self) -> tuple[IOThread, Publisher]:
        with self._lock:
            if self._running is None:
                try:
                    io = IOThread("de-sender", self._on_crash)
                    io.start()
                except (OSError, RuntimeError) as error:  # no descriptor or no thread left
                    raise ConnectionFailed(f"not sent: cannot start the thread that sends: {error}") from error
                self._running = (
                    io,
                    Publisher(io, self._brokers, name=f"sender {os.getpid()}", exchange=self._exchange),
                )
            return self._running

    def _on_crash(self, error: BaseException) -> None:
        # The threads that wait now run into their timeout; the next message starts a new I/O thread.
        logger.error("the sender's I/O thread failed", exc_info=error)
        with self._lock:
            self._running = None

    def _give_up(
        self,
        io: IOThread,
        publisher: Publisher,
        publications: Sequence[Publication],
        receipt: _Receipt,
        timeout: float,
    ) -> None:
        """Withdraw what is not confirmed, in the I/O thread: there, and only there, it is known what went out."""
        problem = publisher.problem

        def withdraw() -> None:
            for index, publication in enumerate(publications):
                if publication.state is State.DONE:
                    continue
                if publication.ever_sent:
                    error: SendError = SendTimeout(
                        f"no confirm within {timeout:g} s; the event may have arrived"
                        + (f" ({problem})" if problem else "")
                    )
                else:
                    error = ConnectionFailed(
                        f"not sent within {timeout:g} s: {problem or 'the broker does not answer'}"
                    )
                publisher.cancel(publication)
                receipt.note(index, error)
            if publisher.silence > max(SUSPICIOUS_SILENCE, publisher.login_time):
                publisher.distrust()

        io.call(withdraw)
        if not receipt.wait(1.0):
            receipt.fill(SendTimeout(f"no confirm within {timeout:g} s, and the I/O thread does not answer"))


class _Receipt:
    """What became of some messages. Written by the I/O thread, waited for by the sending one."""

    def __init__(self, count: int) -> None:
        self._errors: list[BrokerError | None] = [None] * count
        self._noted = [False] * count
        self._left = count
        # A bare lock wakes up its waiter in one system call; an Event takes several.
        self._all = threading.Lock()
        self._all.acquire()
        if not count:
            self._all.release()

    def note(self, index: int, error: BrokerError | None) -> None:
        if self._noted[index]:
            return
        self._noted[index] = True
        self._errors[index] = error
        self._left -= 1
        if not self._left:
            self._all.release()

    def wait(self, timeout: float) -> bool:
        return self._all.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def fill(self, error: SendError) -> None:
        """For when the I/O thread is gone and nobody else writes any more."""
        for index, noted in enumerate(self._noted):
            if not noted:
                self._errors[index] = error

    def errors(self) -> list[BrokerError | None]:
        return list(self._errors)


def _as_send_error(error: BrokerError) -> SendError:
    return error if isinstance(error, SendError) else SendError(str(error))


_senders: weakref.WeakSet[ConfirmedSender] = weakref.WeakSet()
_left_by_parent: list[IOThread] = []
"""Loops of the parent: never touched again, but kept, for their clean-up would close descriptors by number."""


def _forget_all() -> None:
    for sender in list(_senders):
        sender.forget()


def _close_all() -> None:
    for sender in list(_senders):
        sender.close()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)
