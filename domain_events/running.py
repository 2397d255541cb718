"""The way of one delivery: read it, ask whether it is a suspect, call its handler, decide, settle."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from domain_events.calling import Failed, call, call_async
from domain_events.errors import MalformedEvent
from domain_events.events import DomainEvent
from domain_events.gate import Gate
from domain_events.jitter import fraction
from domain_events.observers import Observer
from domain_events.oversight import Suspicion
from domain_events.policy import Handled, Outcome, RetryLater, SetAside, decide, reason_of
from domain_events.registration import Registration
from domain_events.settling import settlement_of
from domain_events.stopping import Stop
from domain_events.surroundings import Surroundings, around_call, around_coroutine
from domain_events.tracing import Arrival, Tracer, context_of
from domain_events.transport.settlement import ACK, GiveBack, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.wire import (
    LARGE,
    OUTCOME_TO,
    Failure,
    Progress,
    garbage_id,
    known_id,
    read_event,
    read_progress,
)

T = TypeVar("T")

LONGEST_WAIT = 5.0
"""Seconds for which nothing else is begun while a condemned event is set aside."""


class Settles(Protocol):
    """Where deliveries come from and outcomes go: a `transport.consumer.Consumer`."""

    def begin(self, delivery: Delivery) -> None: ...

    def settle(self, delivery: Delivery, settlement: Settlement) -> None: ...

    def tell(self, queue: str, body: bytes) -> None: ...

    def fail(self, error: BaseException) -> None: ...


@dataclass(slots=True)  # not frozen: one is made for every event
class _Case:
    """An event to be dealt with."""

    id: str
    event: DomainEvent | None  # None: it is condemned, and was not even read
    suspicion: Suspicion | None  # else no other event may be in hand meanwhile


class Runner:
    """Shared by all threads that handle events."""

    def __init__(
        self,
        consumer: Settles,
        *,
        stop: Stop,
        observer: Observer,
        judge: Callable[[str], Suspicion | None] | None,
        forgive: Callable[[str], object] = lambda _event_id: None,
        reading: Callable[[str], Callable[[], object] | None] = lambda _event_id: None,
        gate: Gate | None,
        context: Context,
        surroundings: Sequence[Surroundings] = (),
        tracer: Tracer | None = None,
        alert: Callable[[DomainEvent], object] | None = None,
    ) -> None:
        """`context`: each event gets a copy of it. `gate`: None when events are handled one by one anyway.

        `alert`: takes alerts, if there are to be any.
        """
        self.context = context
        self._consumer = consumer
        self._stop = stop
        self._observer = observer
        self._judge = judge
        self._forgive = forgive
        self._reading = reading
        self._gate = gate
        self._surroundings = surroundings
        self._tracer = tracer
        self._settlement_of = partial(settlement_of, alert=alert)
        self._process = os.getpid()

    def run(self, delivery: Delivery) -> None:
        """Handle and settle it. What it raises is an error of ours, or comes of a process that a handler forked."""
        self._consumer.begin(delivery)
        case = self._read(delivery)
        if not isinstance(case, _Case):
            self._consumer.settle(delivery, case)
            return
        gate = self._gate
        suspicion = case.suspicion
        if gate is not None and not gate.enter(suspicion is not None):
            _wait(gate, suspicion is not None)
            if self._stop.requested:
                gate.leave()
                self._consumer.settle(delivery, GiveBack())
                return
        if suspicion is not None and suspicion.condemned:
            settled = threading.Event()
            self._traced(delivery, case.event, partial(self._set_aside, delivery, case, settled.set))
            settled.wait(LONGEST_WAIT)
        elif self._tracer is None:
            self._consumer.settle(delivery, self._handled(delivery, case, self.context.copy()))
        else:
            settlement = self._traced(delivery, case.event, lambda: self._handled(delivery, case, copy_context()))
            self._consumer.settle(delivery, settlement)
        if gate is not None:
            gate.leave()

    async def run_async(self, delivery: Delivery) -> None:
        self._consumer.begin(delivery)
        case = self._read(delivery)
        if not isinstance(case, _Case):
            self._consumer.settle(delivery, case)
            return
        gate = self._gate
        suspicion = case.suspicion
        if gate is not None and not gate.enter(suspicion is not None):
            await _wait_async(gate, suspicion is not None)
            if self._stop.requested:
                gate.leave()
                self._consumer.settle(delivery, GiveBack())
                return
        if suspicion is not None and suspicion.condemned:
            loop, settled = asyncio.get_running_loop(), asyncio.Event()

            def say_settled() -> None:
                with suppress(RuntimeError):  # the loop has ended, and nobody waits
                    loop.call_soon_threadsafe(settled.set)

            self._traced(delivery, case.event, partial(self._set_aside, delivery, case, say_settled))
            with suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(settled.wait(), LONGEST_WAIT)
        elif self._tracer is None:
            self._consumer.settle(delivery, await self._handled_async(delivery, case))
        else:
            with self._tracer.arrives(_arrival(delivery, case.event)):  # the task has a context of its own
                settlement = await self._handled_async(delivery, case)
            self._consumer.settle(delivery, settlement)
        if gate is not None:
            gate.leave()

    def end_thread(self) -> None:
        """No more events are handled in this thread."""
        for each in self._surroundings:
            each.thread_ends()

    def crashed(self, error: BaseException) -> None:
        """A thread that handles events has come to an unexpected end."""
        self._consumer.fail(error)

    def _traced(self, delivery: Delivery, event: DomainEvent | None, do: Callable[[], T]) -> T:
        """In a copy of the context, which the tracer has changed: what is called from here belongs to the trace."""
        tracer = self._tracer
        if tracer is None:
            return do()

        def within() -> T:
            with tracer.arrives(_arrival(delivery, event)):
                return do()

        return self.context.copy().run(within)

    def _handled(self, delivery: Delivery, case: _Case, context: Context) -> Settlement:
        registration, event = delivery.subscription.registration, case.event
        assert event is not None
        self._observer.started(registration.name, event)
        began = time.monotonic()
        if self._surroundings:
            with around_call(self._surroundings):
                failed = call(registration.handler, event, context, self._process)
        else:
            failed = call(registration.handler, event, context, self._process)
        seconds = time.monotonic() - began
        if failed is not None:
            return self._failed(delivery, event, failed, seconds)
        self._observer.handled(registration.name, event, seconds)
        if type(delivery.raw_properties) is not bytes:  # else there are no headers of ours in them
            self._tell(delivery, event.uuid_string, Handled(), ACK)
        return ACK

    async def _handled_async(self, delivery: Delivery, case: _Case) -> Settlement:
        registration, event = delivery.subscription.registration, case.event
        assert event is not None
        self._observer.started(registration.name, event)
        began = time.monotonic()
        failed = await self._call_async(registration, event)
        seconds = time.monotonic() - began
        if failed is not None:
            return self._failed(delivery, event, failed, seconds)
        self._observer.handled(registration.name, event, seconds)
        if type(delivery.raw_properties) is not bytes:  # else there are no headers of ours in them
            self._tell(delivery, event.uuid_string, Handled(), ACK)
        return ACK

    def _set_aside(self, delivery: Delivery, case: _Case, settled: Callable[[], object]) -> None:
        """Without its handler. `settled` is called, in another thread, when it is acked or known to come again.

        Nothing else should begin before: the next event may end this process, and then this one would come again,
        while its copy lies there already.
        """
        assert case.suspicion is not None
        failure = Failure.of_death(case.suspicion)
        outcome = SetAside(reason=failure.reason)
        settlement = self._settlement_of(delivery, _progress(delivery), outcome, case.event, failure=failure)

        def told(is_acked: bool) -> None:
            # Not sooner: if it comes again, it is condemned still. And not never: a person may send it again.
            if is_acked:
                self._forgive(case.id)
            settled()

        self._report(delivery.registration, case.event, 0.0, None, outcome)
        self._tell(delivery, case.id, outcome, settlement, told)
        self._consumer.settle(delivery, settlement)

    def _tell(
        self,
        delivery: Delivery,
        event_id: str,
        outcome: Outcome,
        settlement: Settlement,
        told: Callable[[bool], object] | None = None,
    ) -> None:
        """Whoever asks in the headers hears of the outcome, when it is settled; so does `told`, of whether it is."""
        queue, body = None, b""
        if OUTCOME_TO in (delivery.properties.headers or ()):
            # Only here: children that nobody asks have no use for its memory.
            from domain_events.transport.outcomes import asked_for, outcome_of, write_outcome

            queue = asked_for(delivery.properties)
        if queue is not None:
            if len(delivery.body) >= LARGE:  # as whoever looks at dead letters knows it, who does not read it
                event_id = known_id(delivery.properties, delivery.body)
            body = write_outcome(outcome_of(event_id, outcome, settlement))

        def on_settled(is_acked: bool) -> None:
            if queue is not None and is_acked:
                self._consumer.tell(queue, body)
            if told is not None:
                told(is_acked)

        if queue is not None or told is not None:
            delivery.when_settled(on_settled)

    def _read(self, delivery: Delivery) -> _Case | Settlement:
        """The event and what is known of it; or what becomes of a delivery that is none."""
        if self._stop.requested:
            # The I/O thread takes back what waits in the lanes; this one may just have left it.
            return GiveBack()
        if len(delivery.body) < LARGE:
            return self._read_body(delivery)
        # Whoever dies of reading it has it in hand, and who is condemned for that is not read again.
        event_id = known_id(delivery.properties, delivery.body)
        suspicion = self._judge(event_id) if self._judge is not None else None
        if suspicion is not None and suspicion.condemned:
            return _Case(event_id, None, suspicion)
        has_read = self._reading(event_id)
        try:
            return self._read_body(delivery)
        finally:
            if has_read is not None:
                has_read()

    def _read_body(self, delivery: Delivery) -> _Case | Settlement:
        try:
            event = read_event(delivery)
        except MalformedEvent as malformed:
            return self._traced(delivery, None, partial(self._malformed, delivery, malformed))
        judge, event_id = self._judge, event.uuid_string
        return _Case(event_id, event, judge(event_id) if judge is not None else None)

    def _malformed(self, delivery: Delivery, malformed: MalformedEvent) -> Settlement:
        outcome = SetAside(reason=f"malformed: {malformed}")
        self._report(delivery.registration, None, 0.0, Failed(malformed), outcome)
        settlement = self._settlement_of(delivery, _progress(delivery), outcome, None)
        self._tell(delivery, garbage_id(delivery.properties, delivery.body), outcome, settlement)
        return settlement

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

    def _failed(self, delivery: Delivery, event: DomainEvent, failed: Failed, seconds: float) -> Settlement:
        registration = delivery.registration
        spread = fraction()
        outcome = decide(
            failed.error, retries=event.retries, policy=registration.policy, spread=spread, reason=failed.reason
        )
        self._report(registration, event, seconds, failed, outcome)
        settlement = self._settlement_of(delivery, _progress(delivery), outcome, event, failed.error)
        self._tell(delivery, event.uuid_string, outcome, settlement)
        return settlement

    def _report(
        self,
        registration: Registration,
        event: DomainEvent | None,
        seconds: float,
        failed: Failed | None,
        outcome: Outcome,
    ) -> None:
        """`failed`: None when no handler was called, for it might end this process."""
        name, observer = registration.name, self._observer
        match outcome:
            case SetAside(reason=reason):
                observer.failed(name, event, seconds, failed.error if failed is not None else None, reason)
                observer.dead_lettered(name, event, seconds, reason, dropped=not registration.dead_letter)
            case RetryLater(delay=delay) if event is not None and failed is not None:
                observer.failed(name, event, seconds, failed.error, failed.reason or reason_of(failed.error))
                observer.retried(name, event, seconds, delay)


def _arrival(delivery: Delivery, event: DomainEvent | None) -> Arrival:
    """`event`: None where it was not read."""
    message_id = None if event is not None else delivery.properties.message_id
    return Arrival(
        receiver=delivery.registration.name,
        exchange=delivery.registration.exchange,
        routing_key=event.routing_key if event is not None else _progress(delivery).routing_key,
        event_id=event.uuid_string if event is not None else message_id if isinstance(message_id, str) else None,
        retries=event.retries if event is not None else _progress(delivery).retries,
        delivery_tag=delivery.tag,
        headers=context_of(delivery.properties.headers),
    )


def _progress(delivery: Delivery) -> Progress:
    return read_progress(delivery.routing_key, delivery.properties.headers)


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
