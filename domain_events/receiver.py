"""Receivers: named, durable subscriptions of a service, with a handler and a policy."""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from domain_events.handling import consume
from domain_events.lifecycle import application
from domain_events.names import check_exchange_name
from domain_events.policy import Backoff
from domain_events.registration import Handler, QueueType, Registration, make_registration
from domain_events.settings import DEFAULT, ConnectionSettings, check_settings, configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.session import declare_topology

logger = logging.getLogger(__name__)

H = TypeVar("H", bound=Handler)


class Receiver:
    """Registers handlers for events, and runs them. Makes no connection until it must."""

    def __init__(self, connection_settings: ConnectionSettings = DEFAULT, exchange: str = "domain-events") -> None:
        """`connection_settings`: an AMQP URL, a list of them, None (offline), or DEFAULT (the configuration).

        Raises ConfigurationError for a malformed URL, InvalidName for a bad exchange.
        """
        self._settings = check_settings(connection_settings)
        self._exchange = check_exchange_name(exchange)
        self._registrations: list[Registration] = []
        self._stop: Stop | None = None

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """In the order of registration."""
        return tuple(self._registrations)

    def register(
        self,
        handler: Handler,
        name: str,
        binding_keys: str | Iterable[str],
        *,
        dead_letter: bool = True,
        durable: bool = True,
        max_retries: int = 0,
        retry_on: type[BaseException] | Iterable[type[BaseException]] = (),
        backoff: Backoff = Backoff(),  # noqa: B008 - immutable
        timeout: float | None = None,
        processes: int = 1,
        prefetch: int | None = None,
        queue_type: QueueType = "quorum",
        threads: int = 1,
        concurrency: int | None = None,
        single_active: bool = False,
    ) -> None:
        """Call `handler(event)` for every event that one of `binding_keys` matches.

        A plain handler runs in the main thread, one event after the other. An `async def` handler runs in one event
        loop for each process, many events at a time.

        name: of the receiver, and of its queue; unique in a process and, for what must not share its events, in the
            whole system. Receivers of the same name share the events of one queue.
        binding_keys: routing keys, in which "*" stands for one word and "#" for any number of them.
        dead_letter: set aside what is given up, in the queue `<name>:dead`. False: log it at ERROR and forget it.
        durable: events sent while the receiver is away wait for it. False: they are missed.
        max_retries: how often an event is retried before it is given up.
        retry_on: errors of the handler that are treated as `raise Retry()`.
        backoff: the delays of retries that do not ask for one of their own.
        timeout: seconds that the handler may take for one event; None: for ever. A coroutine is cancelled then, and
            has failed with TimeoutError; of any other handler the supervisor ends the process.
        processes: how many children the supervisor starts for it.
        prefetch: how many events a process takes at a time; None: a measured default. Not less than `threads` or
            `concurrency`.
        queue_type: "quorum" (replicated) or "classic"; an existing queue keeps its type.
        threads: more than 1: the handler is called in so many threads of each process, and must be fit for that.
        concurrency: of an `async def` handler: how many events a process has in hand at a time; None: 10.
        single_active: of several processes only one gets events; another takes over when it is gone. So events are
            handled in the order of the queue, but for retries and redeliveries, as long as `threads` or `concurrency`
            is 1. The queue has the argument x-single-active-consumer, which an existing queue cannot get or lose.

        Raises ValueError (also when the name is taken) or TypeError for what cannot be.
        """
        registration = make_registration(
            handler,
            name,
            binding_keys,
            dead_letter=dead_letter,
            durable=durable,
            max_retries=max_retries,
            retry_on=retry_on,
            backoff=backoff,
            timeout=timeout,
            processes=processes,
            prefetch=prefetch,
            queue_type=queue_type,
            exchange=self._exchange,
            connection_settings=self._settings,
            threads=threads,
            concurrency=concurrency,
            single_active=single_active,
        )
        if name in _names:
            raise ValueError(f"a receiver named {name!r} is registered already; names are unique, they name the queue")
        _names[name] = self
        self._registrations.append(registration)

    def handles(
        self,
        name: str,
        binding_keys: str | Iterable[str],
        *,
        dead_letter: bool = True,
        durable: bool = True,
        max_retries: int = 0,
        retry_on: type[BaseException] | Iterable[type[BaseException]] = (),
        backoff: Backoff = Backoff(),  # noqa: B008 - immutable
        timeout: float | None = None,
        processes: int = 1,
        prefetch: int | None = None,
        queue_type: QueueType = "quorum",
        threads: int = 1,
        concurrency: int | None = None,
        single_active: bool = False,
    ) -> Callable[[H], H]:
        """`register` as a decorator; the function stays what it was."""

        def decorate(handler: H) -> H:
            self.register(
                handler,
                name,
                binding_keys,
                dead_letter=dead_letter,
                durable=durable,
                max_retries=max_retries,
                retry_on=retry_on,
                backoff=backoff,
                timeout=timeout,
                processes=processes,
                prefetch=prefetch,
                queue_type=queue_type,
                threads=threads,
                concurrency=concurrency,
                single_active=single_active,
            )
            return handler

        return decorate

    def declare(self, timeout: float = 30.0) -> None:
        """Declare exchange, queues and bindings now, so that events are kept before the receiver first runs.

        Raises TopologyMismatch, BrokerRefused, or ConnectionFailed when it could not be done within `timeout` seconds.
        """
        brokers = configured_brokers(self._settings, "consumer")
        if brokers is None:
            logger.debug("offline: nothing is declared")
        else:
            declare_topology(self._registrations, brokers, timeout)

    def start_consuming(self, timeout: float | None = None) -> None:
        """Run all registered handlers until `stop_consuming`, or for `timeout` seconds.

        In this thread; those with `threads=` and `async def` in threads of their own, which have ended when it returns.
        In the main thread SIGINT and SIGTERM stop it cleanly: what is in hand is finished and settled. A second SIGINT
        ends the process at once. Offline it returns at once.

        Hooks of `child_started` are called before and those of `child_stopping` after it, in this thread.
        """
        if not self._registrations:
            raise ValueError("nothing is registered: call register() before start_consuming()")
        if self._stop is not None:
            raise RuntimeError("this receiver is consuming already")
        if configured_brokers(self._settings, "consumer") is None:
            logger.debug("offline: nothing is received")
            return
        stop = Stop()
        self._stop = stop
        try:
            with _stopped_by_signals(stop), application.consuming():
                consume(self._registrations, stop=stop, timeout=timeout)
        finally:
            self._stop = None
            stop.close()

    def stop_consuming(self) -> None:
        """Ask for a clean stop. May be called from another thread or from a handler; does not wait."""
        stop = self._stop
        if stop is not None:
            stop.request()


_names: weakref.WeakValueDictionary[str, Receiver] = weakref.WeakValueDictionary()
"""Who has which name in this process."""


@contextmanager
def _stopped_by_signals(stop: Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    interrupts = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        # Counted here: `stop.requested` may be true for the first one already, the I/O thread is faster.
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        stop.request()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    stop.handlers_before = {int(number): handler for number, handler in previous.items()}
    wakeup_fd = signal.set_wakeup_fd(stop.wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_fd)
        stop.handlers_before = {}
        for number, handler in previous.items():
            # None: it was set by C code and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
