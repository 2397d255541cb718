"""The way of one delivery: read it, ask whether it is a suspect, call its handler, decide, settle."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Protocol

from domain_events.calling import Failed, call, call_async
from domain_events.errors import MalformedEvent
from domain_events.events import DomainEvent
from domain_events.gate import Gate
from domain_events.observers import Observer
from domain_events.oversight import Suspicion
from domain_events.policy import Handled, Outcome, RetryLater, SetAside, decide
from domain_events.registration import Registration
from domain_events.settling import settlement_of
from domain_events.stopping import Stop
from domain_events.surroundings import Surroundings, around_call, around_coroutine
from domain_events.transport.consumer import GiveBack, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.wire import Failure, Progress, read_event, read_progress


class Settles(Protocol):
    """Where deliveries come from and outcomes go: a `transport.consumer.Consumer`."""

    def begin(self, delivery: Delivery) -> None: ...

    def settle(self, delivery: Delivery, settlement: Settlement) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Runner:
    """Shared by all threads that handle events."""

    def __init__(
        self,
        consumer: Settles,
        *,
        stop: Stop,
        observer: Observer,
        judge: Callable[[str], Suspicion | None] | None,
        gate: Gate | None,
        context: Context,
        surroundings: Sequence[Surroundings] = (),
    ) -> None:
        """`context`: each event gets a copy of it. `gate`: None when events are handled one by one anyway."""
        self.context = context
        self._consumer = consumer
        self._stop = stop
        self._observer = observer
        self._judge = judge
        self._gate = gate
        self._surroundings = surroundings

    def run(self, delivery: Delivery) -> None:
        """Handle and settle it. What it raises is an error of ours, or comes of a process that a handler forked."""
        self._consumer.begin(delivery)
        self._consumer.settle(delivery, self._handled(delivery))

    async def run_async(self, delivery: Delivery) -> None:
        self._consumer.begin(delivery)
        self._consumer.settle(delivery, await self._handled_async(delivery))

    def end_thread(self) -> None:
        """No more events are handled in this thread."""
        for each in self._surroundings:
            each.thread_ends()

    def crashed(self, error: BaseException) -> None:
        """A thread that handles events has come to an unexpected end."""
        self._consumer.fail(error)

    def _handled(self, delivery: Delivery) -> Settlement:
        read = self._read(delivery)
        if not isinstance(read, tuple):
            return read
        event, progress, alone = read
        gate = self._gate
        if gate is not None and not gate.enter(alone):
            _wait(gate, alone)
            if self._stop.requested:
                gate.leave()
                return GiveBack()
        registration = delivery.registration
        self._observer.started(registration.name, event)
        began = time.monotonic()
        if self._surroundings:
            with around_call(self._surroundings):
                failed = call(registration.handler, event, self.context.copy())
        else:
            failed = call(registration.handler, event, self.context.copy())
        settlement = self._ended(delivery, progress, event, failed, time.monotonic() - began)
        if gate is not None:
            gate.leave()
        return settlement

    async def _handled_async(self, delivery: Delivery) -> Settlement:
        read = self._read(delivery)
        if not isinstance(read, tuple):
            return read
        event, progress, alone = read
        gate = self._gate
        if gate is not None and not gate.enter(alone):
            await _wait_async(gate, alone)
            if self._stop.requested:
                gate.leave()
                return GiveBack()
        registration = delivery.registration
        self._observer.started(registration.name, event)
        began = time.monotonic()
        failed = await self._call_async(registration, event)
        settlement = self._ended(delivery, progress, event, failed, time.monotonic() - began)
        if gate is not None:
            gate.leave()
        return settlement

    def _read(self, delivery: Delivery) -> tuple[DomainEvent, Progress, bool] | Settlement:
        """The event, how far it has come, and whether to handle it alone. Or what becomes of it without a handler."""
        if self._stop.requested:
            # The I/O thread takes back what waits in the lanes; this one may just have left it.
            return GiveBack()
        registration = delivery.registration
        progress = read_progress(delivery.routing_key, delivery.properties.headers)
        try:
            event = read_event(delivery.properties, delivery.body, progress.retries)
        except MalformedEvent as malformed:
            outcome = SetAside(reason=f"malformed: {malformed}")
            self._report(registration, None, 0.0, outcome)
            return settlement_of(delivery, progress, outcome, None)
        suspicion = self._judge(event.uuid_string) if self._judge is not None else None
        if suspicion is not None and suspicion.condemned:
            failure = Failure.of_death(suspicion)
            outcome = SetAside(reason=failure.reason)
            self._report(registration, event, 0.0, outcome)
            return settlement_of(delivery, progress, outcome, event, failure=failure)
        return event, progress, suspicion is not None

    async def _call_async(self, registration: Registration, event: DomainEvent) -> Failed | None:
        if not self._surroundings:
            return await call_async(registration.handler, event, registration.timeout)
        failed: Failed | None = None
        is_called = False
        try:
            async with around_coroutine(self._surroundings):
                failed = await call_async(registration.handler, event, registration.timeout)
                is_called = True
        except asyncio.CancelledError as error:
            # Somebody cancels all tasks that there are: it must be settled all the same.
            if not is_called:
                return Failed(error)
        return failed

    def _ended(
        self, delivery: Delivery, progress: Progress, event: DomainEvent, failed: Failed | None, seconds: float
    ) -> Settlement:
        registration = delivery.registration
        error, reason = (None, None) if failed is None else (failed.error, failed.reason)
        spread = random.random()  # noqa: S311 - no secret
        outcome = decide(error, retries=event.retries, policy=registration.policy, spread=spread, reason=reason)
        self._report(registration, event, seconds, outcome)
        return settlement_of(delivery, progress, outcome, event, error)

    def _report(self, registration: Registration, event: DomainEvent | None, seconds: float, outcome: Outcome) -> None:
        observer = self._observer
        match outcome:
            case SetAside(reason=reason):
                observer.dead_lettered(registration.name, event, seconds, reason, dropped=not registration.dead_letter)
            case RetryLater(delay=delay) if event is not None:
                observer.retried(registration.name, event, seconds, delay)
            case Handled() if event is not None:
                observer.handled(registration.name, event, seconds)


def _wait(gate: Gate, alone: bool) -> None:
    admitted = threading.Event()
    gate.queue(alone, admitted.set)
    admitted.wait()


async def _wait_async(gate: Gate, alone: bool) -> None:
    loop = asyncio.get_running_loop()
    admitted = loop.create_future()
    gate.queue(alone, lambda: loop.call_soon_threadsafe(admitted.set_result, None))
    while not admitted.done():
        # Who cancels the task means a handler, and none runs yet: the place at the gate must not be lost.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(admitted)
