"""The broker's side of a consumer.

The threads that handle events call `take`, `begin` and `settle`. The rest belongs to whoever holds the turn of the I/O
thread "de-io": that thread, and the one that handles events when it has nothing else to do (see `serving`).
"""

from __future__ import annotations

import logging
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pika import exceptions
from pika.adapters.select_connection import IOLoop

from domain_events.errors import BrokerError, BrokerRefused, SendError, TopologyMismatch
from domain_events.oversight import Oversight
from domain_events.registration import Registration
from domain_events.settings import Broker
from domain_events.stopping import Stop
from domain_events.transport.connection import Connection
from domain_events.transport.copying import Copying
from domain_events.transport.direct import DirectConnection
from domain_events.transport.handover import HandOver, Lane
from domain_events.transport.io_thread import IOThread
from domain_events.transport.long_handlers import LongHandlers
from domain_events.transport.pausing import LONGEST_PAUSE, pause
from domain_events.transport.problems import channel_problem
from domain_events.transport.renewing import RENEWED_EVERY, Renewing
from domain_events.transport.script import NoAnswer
from domain_events.transport.serving import Serving
from domain_events.transport.settlement import Ack, Copy, GiveBack, Settlement
from domain_events.transport.subscription import LONGEST_SILENCE, Delivery, Subscription

if TYPE_CHECKING:
    from domain_events.transport.alerting import Alerting

logger = logging.getLogger(__name__)

LONGEST_UNACKED = 0.05
"""Seconds that an event may be done without the broker knowing."""

SLOW_HANDLER = 0.01
"""Seconds. After a slower handler an ack of its own costs nothing worth saving."""

BEATS_EARLY = 0.9
"""Of the time between two signs of life: a timer is never early by itself."""


class Listener(Protocol):
    """Who is told how the consumer fares; called in the turn of the I/O thread."""

    def consuming(self) -> None: ...

    def disconnected(self, reason: str) -> None: ...


class Consumer:
    """The receivers of one process: a connection to consume and settle, and one to publish copies.

    Two, because the broker stops reading from a connection that publishes while it is short of memory or disk, and
    acks must go on then.
    """

    def __init__(
        self,
        registrations: Sequence[Registration],
        brokers: Sequence[Broker],
        *,
        stop: Stop,
        listener: Listener,
        oversight: Oversight | None = None,
        lanes: Mapping[str, Lane] | None = None,
        draining: Callable[[], None] | None = None,
        alerts: Sequence[Broker] | None = None,
        renewed_every: float = RENEWED_EVERY,
        patience: float = LONGEST_SILENCE,
    ) -> None:
        """`lanes`: of those receivers whose deliveries `take` does not return, by name.

        `draining` is called when a stop has begun, and everything that waits in lanes is taken back. `alerts`: where
        they go, if there are to be any. `patience`: seconds for the broker to answer each request of a subscription.
        """
        names = ",".join(registration.name for registration in registrations)
        self.error: BaseException | None = None
        """Why consuming ended without having been asked to."""
        self._stop = stop
        self._listener = listener
        self._oversight = oversight
        self._on_draining = draining
        self._main_lane: HandOver[Delivery] = HandOver()
        # What several threads touch at once: sets and deques, in single steps that are atomic.
        self._in_hand: set[Delivery] = set()
        self._done: deque[tuple[Delivery, Settlement]] = deque()
        self._oldest_done = 0.0
        self._is_asked_to_settle = False
        self._io = IOThread("de-io", self._on_crash)
        self._serving = Serving(self._io, ready=self._main_lane.__bool__)
        self._connection = Connection(
            self._io, brokers, name=f"receiver {names}", opened=self._on_opened, lost=self._on_lost
        )
        self._copying = Copying(self._io, brokers, name=f"receiver {names} (copies)", settled=self._finish_when_settled)
        self.alerting: Alerting | None = None
        if alerts is not None:
            from domain_events.transport.alerting import Alerting  # others have no use for its memory

            self.alerting = Alerting(self._io, alerts, name=f"receiver {names}")
        self._renewing = Renewing(
            self._io,
            self._those_that_consume,
            every=renewed_every,
            patience=2 * patience,
            unserved=self._on_unserved,
        )
        lanes = lanes or {}
        self._subscriptions = [
            Subscription(
                registration,
                lanes.get(registration.name, self._main_lane),
                self._deliver,
                clock=self._io,
                patience=patience,
            )
            for registration in registrations
        ]
        self._lanes: list[Lane] = [self._main_lane, *lanes.values()]
        self._takes_turns = self._io.shares_turns and not lanes
        """Only one thread handles events, and may take turns with the I/O thread."""
        self._failures = 0
        self._opened_at = 0.0
        self._pause: object | None = None
        self._tick: object | None = None
        self._has_delivered = False
        """Since the last tick."""
        self._long_handlers = LongHandlers()
        self._is_started = False
        self._draining = False
        self._calming: object | None = None
        self._finishing = False
        _consumers.add(self)

    # Called in the threads that handle events

    def start(self, timeout: float | None = None) -> None:
        """Begin; with `timeout` (seconds) ask for a stop by itself."""

        def begin() -> None:
            self._beat()
            self._io.loop.add_handler(self._stop.fileno(), self._on_stop_signal, IOLoop.READ)
            if timeout is not None:
                self._io.later(timeout, self._stop.request)
            self._connection.open()

        self._io.call(begin)
        self._io.start()
        self._is_started = True

    def take(self) -> Delivery | None:
        """The next delivery of the main lane; waits for it. None when all is settled and the connections are closed.

        For one thread. The other lanes end at the same time.
        """
        if self._takes_turns:
            while (delivery := self._main_lane.next()) is None and self._serving.wait(self._lend):
                pass
            if delivery is not None:
                return delivery
        return self._main_lane.take()

    def begin(self, delivery: Delivery) -> None:
        """It is in hand from now on, until it is settled."""
        delivery.begun = time.monotonic()
        self._in_hand.add(delivery)

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """Tell the broker, soon: many acks become one, but none waits longer than LONGEST_UNACKED."""
        now, done, subscription = time.monotonic(), self._done, delivery.subscription
        if not done:
            self._oldest_done = now
        self._in_hand.discard(delivery)
        done.append((delivery, settlement))
        if not self._is_asked_to_settle and (
            type(settlement) is not Ack
            or not subscription.lane
            or now - delivery.begun > SLOW_HANDLER
            or now - self._oldest_done > LONGEST_UNACKED
            or len(done) * 2 >= subscription.prefetch
        ):
            if self._takes_turns:
                with self._io.turn:
                    self._settle_done()
            else:
                # One wake-up for all threads: what is done by the time it comes goes with it.
                self._is_asked_to_settle = True
                self._io.call(self._settle_done)

    def tell(self, queue: str, body: bytes) -> None:
        """Into `queue`, if it is there; nobody is told how it went. In the I/O thread's turn."""
        self._copying.tell(queue, body)

    def fail(self, error: BaseException) -> None:
        """An error of ours in a thread that handles events: what it had in hand will never be settled."""
        self._io.call(partial(self._end, error))

    def close(self) -> None:
        """End the I/O thread. To be called when `take` has returned None, or after an error."""
        if self._is_started:
            self._io.stop()
        for delivery, _settlement in self._done:
            _warn_stale(delivery)
        # After an error they are open still, and the broker would wait for the events that it gave us.
        self.forget()
        self._serving.close()

    def forget(self) -> None:
        """Close our sockets without a word to the broker, also in a forked child: see `Connection.forget`."""
        self._done.clear()
        self._connection.forget()
        self._copying.forget()
        if self.alerting is not None:
            self.alerting.forget()

    def _lend(self) -> DirectConnection | None:
        """The connection, to be read by the thread that handles events."""
        can_lend = not self._draining and self.error is None and self._connection.is_open
        return self._amqp if can_lend and all(each.consuming for each in self._subscriptions) else None

    # Connecting and subscribing

    def _on_opened(self, connection: DirectConnection) -> None:
        self._amqp = connection
        self._opened_at = time.monotonic()
        self._renewing.start(connection)
        for subscription in self._subscriptions:
            self._subscribe(subscription)

    def _subscribe(self, subscription: Subscription) -> None:
        subscription.pause = None
        if not self._draining and self._connection.is_open:
            subscription.start(
                self._amqp,
                consuming=self._on_consuming,
                failed=partial(self._on_not_subscribed, subscription),
                lost=partial(self._on_unsubscribed, subscription),
                cancelled=partial(self._on_cancelled, subscription),
            )

    def _on_consuming(self) -> None:
        if all(subscription.consuming for subscription in self._subscriptions):
            self._failures = 0
            self._listener.consuming()

    def _those_that_consume(self) -> list[Subscription]:
        return [subscription for subscription in self._subscriptions if subscription.consuming]

    def _on_not_subscribed(self, subscription: Subscription, error: Exception) -> None:
        problem = channel_problem(error)
        if isinstance(error, NoAnswer) and not subscription.is_served:
            self._on_unserved(error)
            return
        gone = isinstance(error, exceptions.ChannelClosed) and error.reply_code == 404
        if isinstance(problem, (TopologyMismatch, BrokerRefused)) and not gone and not subscription.has_consumed:
            self._end(problem)
        else:
            self._subscribe_later(subscription, problem)

    def _on_unserved(self, error: NoAnswer) -> None:
        # Nobody there reads what we write, acks neither, and what is delivered to such a channel stays with it. Its
        # heartbeats prove nothing.
        logger.warning("%s; connecting again", error)
        self._connection.drop()

    def _on_unsubscribed(self, subscription: Subscription, error: Exception) -> None:
        self._lose(subscription)
        # When the connection is lost its channels are told first; _on_lost does the rest.
        if isinstance(error, exceptions.ChannelClosed):
            self._subscribe_later(subscription, channel_problem(error))
        self._finish_when_settled()

    def _on_cancelled(self, subscription: Subscription) -> None:
        longest = self._long_handlers.longest(self._in_hand, subscription)
        channel = subscription.channel
        self._lose(subscription)
        if channel is not None and channel.is_open:
            channel.close()
        # From 4.3 on, also because of an event that was in hand for longer than its acknowledgement timeout.
        problem = "the broker cancelled the consumer: its queue was deleted or moved, or its node is down"
        if longest is not None:
            problem += f", or took back an event that had been in hand for {longest:.0f} s"
        self._subscribe_later(subscription, SendError(problem))
        self._finish_when_settled()

    def _subscribe_later(self, subscription: Subscription, problem: BrokerError) -> None:
        if self._draining or not self._connection.is_open or subscription.pause is not None:
            return
        delay = pause(subscription.failures)
        subscription.failures += 1
        name = subscription.registration.name
        logger.warning("receiver %s does not consume: %s; trying again in %.1f s", name, problem, delay)
        self._listener.disconnected(str(problem))
        subscription.pause = self._io.later(delay, partial(self._subscribe, subscription))

    def _on_lost(self, error: SendError) -> None:
        self._serving.withdraw()
        self._renewing.stop()
        for subscription in self._subscriptions:
            self._lose(subscription)
        if self._draining:
            self._finish_when_settled()
        elif isinstance(error, BrokerRefused) and not any(each.has_consumed for each in self._subscriptions):
            self._end(error)
        else:
            if self._opened_at and time.monotonic() - self._opened_at > LONGEST_PAUSE:
                self._failures = 0  # it was there, though a receiver may have been unable to consume
            self._opened_at = 0.0
            delay = pause(self._failures)
            self._failures += 1
            logger.warning("the broker is away: %s; trying again in %.1f s", error, delay)
            self._listener.disconnected(str(error))
            self._pause = self._io.later(delay, self._connection.open)

    def _lose(self, subscription: Subscription) -> None:
        if subscription.pause is not None:
            self._io.cancel(subscription.pause)
            subscription.pause = None
        self._copying.withdraw(subscription.reset())
        # What nobody has begun comes again on the next channel: handling it now too would only make duplicates.
        for delivery in subscription.lane.take_back():
            if not delivery.is_stale:
                subscription.lane.put(delivery)

    # Deliveries and outcomes

    def _deliver(self, delivery: Delivery) -> None:
        if self._draining:
            delivery.subscription.give_back(delivery.tag)
            return
        delivery.subscription.lane.put(delivery)
        self._has_delivered = True
        if self._tick is None:
            self._tick = self._io.later(LONGEST_UNACKED, self._on_tick)

    def _on_tick(self) -> None:
        """Runs while something is unsettled: no finished event stays unknown to the broker behind a long handler."""
        self._settle_done()
        self._serving.look()
        self._long_handlers.look(self._in_hand, time.monotonic())
        busy = self._has_delivered or any(len(subscription.unsettled) for subscription in self._subscriptions)
        self._has_delivered = False
        self._tick = self._io.later(LONGEST_UNACKED, self._on_tick) if busy else None

    def _settle_done(self) -> None:
        self._is_asked_to_settle = False  # first: what is done from now on asks again
        done = self._done
        while done:
            delivery, settlement = done.popleft()
            subscription = delivery.subscription
            if delivery.is_stale:
                _warn_stale(delivery)
            elif type(settlement) is Ack:  # nearly always
                subscription.unsettled.done(delivery.tag)
            elif isinstance(settlement, GiveBack):
                subscription.give_back(delivery.tag)
            else:
                assert isinstance(settlement, Copy)
                self._copying.copy(delivery, settlement)
        for subscription in self._subscriptions:
            subscription.send_acks()
        self._finish_when_settled()

    # Stopping

    def _on_stop_signal(self, _fd: int, _events: int) -> None:
        signals = self._stop.read_signals()
        if signal.SIGQUIT in signals and self._oversight is not None:
            self._settle_done()
            self._oversight.forced(bool(self._in_hand))
        if self._stop.requested:
            self._drain()

    def _drain(self) -> None:
        """Take no more, give back what nobody has begun, wait for what is in hand."""
        if self._draining:
            return
        self._draining = True
        self._serving.withdraw()
        for handle in (self._pause, *(subscription.pause for subscription in self._subscriptions)):
            if handle is not None:
                self._io.cancel(handle)
        # Cancel first: what is given back must not come straight back to us.
        for subscription in self._subscriptions:
            subscription.stop()
        for lane in self._lanes:
            for delivery in lane.take_back():
                if not delivery.is_stale:
                    delivery.subscription.give_back(delivery.tag)
        if self._on_draining is not None:
            self._on_draining()
        self._settle_done()
        self._copying.drain(self._subscriptions)

    def _finish_when_settled(self) -> None:
        if not self._draining or self._finishing:
            return
        if any(len(subscription.unsettled) for subscription in self._subscriptions):
            return
        wait = max(subscription.calm.wait() for subscription in self._subscriptions)
        if not wait:
            self._finish()
        elif self._calming is None:
            self._calming = self._io.later(wait, self._on_calm)

    def _on_calm(self) -> None:
        self._calming = None
        self._finish_when_settled()

    def _finish(self) -> None:
        self._finishing = True
        self._renewing.stop()
        self._connection.close(lambda: self._copying.close(self._take_leave))

    def _take_leave(self) -> None:
        if self.alerting is not None:
            self.alerting.close(self._say_end)
        else:
            self._say_end()

    def _say_end(self) -> None:
        self._io.loop.remove_handler(self._stop.fileno())
        for lane in self._lanes:
            lane.end()

    def _end(self, error: BaseException) -> None:
        """Something that trying again cannot help."""
        self.error = self.error or error
        self._draining = True
        self._serving.withdraw()
        # What nobody has begun goes back with the connection.
        for lane in self._lanes:
            lane.take_back()
        if not self._finishing:
            self._finish()

    def _on_crash(self, error: BaseException) -> None:
        self.error = error
        self._takes_turns = False  # there is nobody to take them with
        self._serving.withdraw()
        for lane in self._lanes:
            lane.take_back()
            lane.end()

    # Signs of life

    def _beat(self) -> None:
        if self._oversight is not None:
            self._oversight.beat()
            self._io.later(self._oversight.beat_every * BEATS_EARLY, self._beat)


def _warn_stale(delivery: Delivery) -> None:
    logger.warning(
        "receiver %s: its channel was lost while an event was being handled; the event comes again",
        delivery.registration.name,
    )


_consumers: weakref.WeakSet[Consumer] = weakref.WeakSet()
_left_by_parent: list[Consumer] = []
"""Never touched again, but kept, for their clean-up would close descriptors by number."""


def _forget_all() -> None:
    # A process that a handler has forked may outlive us. With a copy of our sockets it would let the broker believe
    # that we are alive and busy with our events, until heartbeats are missed.
    for consumer in list(_consumers):
        consumer.forget()
        _left_by_parent.append(consumer)


os.register_at_fork(after_in_child=_forget_all)
