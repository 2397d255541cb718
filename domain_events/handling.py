"""Deliveries in, outcomes out: how the receivers of a process consume, until all is settled."""

from __future__ import annotations

import contextvars
import logging
import os
import select
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from domain_events import observers, surroundings, tracing
from domain_events.gate import Gate
from domain_events.guarding import guarded, told
from domain_events.observers import Observer
from domain_events.oversight import Oversight
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.settings import Brokers, configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.consumer import BEATS_EARLY, Consumer
from domain_events.transport.parameters import prepare_parameters

if TYPE_CHECKING:
    from domain_events.helpers import Helpers

logger = logging.getLogger(__name__)


def prepare(registrations: Iterable[Registration]) -> None:
    """In a process that will fork: make now what each consumer needs, so that the children share it.

    Raises ConfigurationError for a malformed URL or a missing file.
    """
    registrations = list(registrations)
    if _need_helpers(registrations):
        import domain_events.helpers  # noqa: F401
    for settings in {id(r.connection_settings): r.connection_settings for r in registrations}.values():
        for broker in configured_brokers(settings, "consumer") or ():
            prepare_parameters(broker)


def consume(
    registrations: Sequence[Registration],
    *,
    stop: Stop,
    observer: Observer | None = None,
    oversight: Oversight | None = None,
    timeout: float | None = None,
) -> None:
    """Handle the events of `registrations` until `stop` is requested and all is settled.

    Plain handlers run in this thread, `threads=` in pools of their own, coroutines in one more thread.

    All registrations must have the same connection settings. `observer` is told what happens, and those that are
    registered. `timeout`: seconds until it asks for the stop by itself.

    Reconnects by itself for ever. Raises ConfigurationError (TopologyMismatch) or BrokerRefused for what trying
    again cannot help.
    """
    others = [each for each in observers.registered() if each is not observer]
    telling = told([observer, *others] if observer is not None else others)
    overseer = guarded(oversight) if oversight is not None else None
    brokers = configured_brokers(registrations[0].connection_settings, "consumer")
    if brokers is None:
        logger.debug("offline: %s receive nothing", ", ".join(registration.name for registration in registrations))
        telling.consuming()
        _wait_offline(stop, timeout, overseer)
        return
    process = os.getpid()
    helpers: Helpers | None = None
    if _need_helpers(registrations):
        from domain_events.helpers import Helpers  # plain receivers have no use for its memory

        helpers = Helpers(registrations)
    gate = Gate() if helpers is not None else None  # without helpers, every event is handled alone
    consumer = Consumer(
        registrations,
        brokers,
        stop=stop,
        listener=telling,
        oversight=overseer,
        lanes=helpers.lanes if helpers is not None else None,
        draining=gate.open if gate is not None else None,
        alerts=_brokers_for_alerts(registrations[0], overseer),
    )
    runner = Runner(
        consumer,
        stop=stop,
        observer=telling,
        judge=overseer.judge if overseer is not None else None,
        forgive=overseer.forgive if overseer is not None else lambda _event_id: None,
        reading=overseer.reading if overseer is not None else lambda _event_id: None,
        gate=gate,
        context=contextvars.copy_context(),
        surroundings=surroundings.registered(),
        tracer=tracing.tracer,
        alert=consumer.alerting.tell if consumer.alerting is not None else None,
    )
    try:
        if helpers is not None:
            helpers.start(runner)
        consumer.start(timeout)
        while (delivery := consumer.take()) is not None:
            runner.run(delivery)
        if helpers is not None:
            helpers.join()  # after an error some may be in the middle of an event
    finally:
        # A process that a handler forked, and that comes back from it, has none of our threads and connections.
        if os.getpid() == process:
            if helpers is not None:
                helpers.end()
            consumer.close()
    if consumer.error is not None:
        raise consumer.error


def _brokers_for_alerts(registration: Registration, oversight: Oversight | None) -> Brokers | None:
    """Where the handlers' own events go. None: no alerts are wanted, or nothing is sent from here."""
    if oversight is None or not oversight.alerts:
        return None
    return configured_brokers(registration.connection_settings, "producer")


def _need_helpers(registrations: Iterable[Registration]) -> bool:
    return any(registration.is_async or registration.concurrency > 1 for registration in registrations)


def _wait_offline(stop: Stop, timeout: float | None, oversight: Oversight | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not stop.requested:
        waits = []
        if deadline is not None:
            waits.append(deadline - time.monotonic())
            if waits[0] <= 0:
                return
        if oversight is not None:
            oversight.beat()
            waits.append(oversight.beat_every * BEATS_EARLY)
        if select.select([stop.fileno()], [], [], min(waits, default=None))[0]:
            stop.read_signals()
