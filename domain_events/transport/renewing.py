"""Looks after what nobody tells a consumer of: exchanges that are gone, channels that the broker serves no more."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from pika import exceptions
from pika.channel import Channel
from pika.connection import Connection as AnyConnection

from domain_events.jitter import between
from domain_events.registration import Registration
from domain_events.transport.declaring import bind_queue, declare_exchange, open_channel
from domain_events.transport.io_thread import IOThread
from domain_events.transport.problems import channel_problem
from domain_events.transport.script import NoAnswer, Script, Steps
from domain_events.transport.subscription import Subscription

logger = logging.getLogger(__name__)

RENEWED_EVERY = 30.0
"""Seconds, give or take a fifth. An exchange that somebody deletes takes its bindings with it, and a sender that
declares it anew does not bring them back: the queue is there, its consumer too, and nothing comes any more. AMQP has no
question for that, but to bind again what is bound costs the broker a millisecond."""


class Renewing:
    """Belongs into the I/O thread. On channels of its own: a refusal closes them."""

    def __init__(
        self,
        io: IOThread,
        consuming: Callable[[], Iterable[Subscription]],
        *,
        every: float = RENEWED_EVERY,
        patience: float,
        unserved: Callable[[NoAnswer], None],
    ) -> None:
        """`consuming`: the subscriptions that do. `unserved` is called when the channel of one of them answers nothing
        any more, or the connection opens no other: then nothing is settled either. `patience`: seconds for each answer.
        It is worth a long wait: who gives up a connection has its events delivered again."""
        self._io = io
        self._consuming = consuming
        self._unserved = unserved
        self._every = every
        self._patience = patience
        self._connection: AnyConnection | None = None
        self._left: deque[Subscription] = deque()
        self._script: Script[None] | None = None
        self._channel: Channel | None = None
        self._asked: Channel | None = None  # the channel of a subscription
        self._timer: object | None = None
        self._warned_of: dict[str, str] = {}

    def start(self, connection: AnyConnection) -> None:
        """All has just been declared on `connection`, or will be."""
        self._connection = connection
        self._wait()

    def stop(self) -> None:
        """The connection is gone, or will be."""
        self._connection = None
        self._left.clear()
        if self._timer is not None:
            self._io.cancel(self._timer)
            self._timer = None
        if self._script is not None and self._script.running:
            self._script.cancel()
        self._channel = None

    def _wait(self) -> None:
        spread = between(0.8, 1.2)
        self._timer = self._io.later(self._every * spread, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._left = deque(self._consuming())
        self._renew_next()

    def _renew_next(self) -> None:
        if self._connection is None:
            return
        if not self._left:
            self._wait()
            return
        subscription = self._left.popleft()
        channel = subscription.channel
        if channel is None or not channel.is_open:
            self._renew_next()  # it has noticed by itself
            return
        self._asked = channel
        script = self._script = Script(
            self._steps(self._connection, subscription, channel),
            done=lambda _nothing: self._on_done(subscription.registration, ""),
            failed=partial(self._on_failed, subscription),
            clock=self._io,
            patience=self._patience,
        )
        script.start()

    def _steps(self, connection: AnyConnection, subscription: Subscription, theirs: Channel) -> Steps[None]:
        # This is set already. But as an answer it proves that the channel is served.
        yield lambda done: theirs.basic_qos(prefetch_count=subscription.prefetch, callback=done)
        self._asked = None
        another = partial(open_channel, connection, self._on_channel_closed, self._on_channel)
        registration = subscription.registration
        exchange = registration.exchange
        channel: Channel = yield another()
        try:
            yield lambda done: channel.exchange_declare(exchange, passive=True, callback=done)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            logger.warning(
                "exchange %s was deleted; it is declared and bound again. What was sent meanwhile reached nobody",
                exchange,
            )
            channel = yield another()
        # It may be there and be another one: of another type, or without our bindings.
        channel = yield from declare_exchange(another, channel, exchange)
        yield from bind_queue(channel, registration.name, exchange, registration.binding_keys)

    def _on_channel(self, channel: Channel) -> None:
        self._channel = channel

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        # With the connection all channels go; what then has to be done, `stop` does.
        if channel is self._channel and self._script is not None and isinstance(error, exceptions.ChannelClosed):
            self._script.throw(error)

    def _on_failed(self, subscription: Subscription, error: Exception) -> None:
        if not isinstance(error, NoAnswer) or self._channel is not None:
            self._on_done(subscription.registration, str(channel_problem(error)))
        elif self._asked is not None and self._asked is not subscription.channel:
            self._renew_next()  # it was closed meanwhile, and has noticed by itself
        else:
            self._unserved(error)

    def _on_done(self, registration: Registration, problem: str) -> None:
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            channel.close()
        name = registration.name
        if problem and self._warned_of.get(name) != problem:
            logger.warning("the bindings of receiver %s cannot be renewed: %s", name, problem)
        self._warned_of[name] = problem
        self._renew_next()
