"""Requests to the broker, one script after the other, for a thread that has no I/O loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, cast

from pika import exceptions
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.errors import BrokerError, ConnectionFailed
from domain_events.registration import Registration
from domain_events.settings import Broker
from domain_events.transport.connection import CLOSE_TIMEOUT, Connection
from domain_events.transport.declaring import declare_receiver, open_channel
from domain_events.transport.io_thread import IOThread
from domain_events.transport.problems import channel_problem
from domain_events.transport.script import Script, Step, Steps

T = TypeVar("T")

Another: TypeAlias = Callable[[], Step]
"""A step that answers with a new channel."""


class Session:
    """One connection, opened when first needed, and again when it was lost between two scripts."""

    def __init__(self, brokers: Sequence[Broker], name: str) -> None:
        self._answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.io = IOThread(f"de-{name}", lambda error: self._answer.put((None, error)))
        self._connection = Connection(self.io, brokers, name=name, opened=self._on_opened, lost=self._on_lost)
        self._steps: Callable[[Another], Steps[Any]] | None = None
        self._script: Script[Any] | None = None
        self._amqp: AnyConnection | None = None
        self.io.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, steps: Callable[[Another], Steps[T]], timeout: float | None) -> T:
        """Run a script and wait for its end. Raises what it raises, with pika's errors translated, and
        ConnectionFailed when the broker is lost or has not answered all of it within `timeout` seconds."""

        def begin() -> None:
            self._steps = steps
            if self._connection.is_open:
                self._start()
            else:
                self._connection.open()

        self.io.call(begin)
        try:
            value, error = self._answer.get(timeout=timeout)
        except Empty:
            raise ConnectionFailed(f"the broker did not answer within {timeout:g} s") from None
        if error is not None:
            raise error
        return cast(T, value)

    def close(self) -> None:
        """Leave the broker. Whatever is going on ends: nobody is answered any more."""
        left = threading.Event()
        self.io.call(lambda: self._leave(left.set))
        left.wait(CLOSE_TIMEOUT + 1.0)
        self.io.stop()

    def _leave(self, left: Callable[[], None]) -> None:
        if self._script is not None:
            self._script.cancel()
        self._connection.close(left)

    def _on_opened(self, amqp: AnyConnection) -> None:
        self._amqp = amqp
        self._start()

    def _on_lost(self, error: BrokerError) -> None:
        if self._script is not None and self._script.running:
            self._script.cancel()
        self._answer_with(None, error)

    def _start(self) -> None:
        assert self._amqp is not None
        assert self._steps is not None
        steps = self._steps(partial(open_channel, self._amqp, self._on_channel_closed))
        self._script = Script(steps, done=lambda value: self._answer_with(value, None), failed=self._on_failed)
        self._script.start()

    def _on_channel_closed(self, _channel: Channel, error: Exception) -> None:
        # Not one that the script has closed; and when the connection goes, _on_lost knows why.
        if isinstance(error, exceptions.ChannelClosedByBroker) and self._script is not None:
            self._script.throw(error)

    def _on_failed(self, error: Exception) -> None:
        self._answer_with(None, channel_problem(error))

    def _answer_with(self, value: Any, error: BaseException | None) -> None:
        if self._steps is not None:  # else nobody waits
            self._steps = None
            self._answer.put((value, error))


def declare_topology(registrations: Sequence[Registration], brokers: Sequence[Broker], timeout: float) -> None:
    """Declare all of them and wait until that is done.

    Raises TopologyMismatch, BrokerRefused, or ConnectionFailed after `timeout` seconds.
    """

    def steps(another: Another) -> Steps[None]:
        for registration in registrations:
            channel: Channel = yield another()
            yield from declare_receiver(another, channel, registration)

    with Session(brokers, "declare") as session:
        session.run(steps, timeout)
