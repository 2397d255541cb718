"""Publishing with confirms: what is submitted is confirmed, or its owner is told why not."""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika import BasicProperties, exceptions, spec
from pika.channel import Channel

from domain_events.errors import (
    BrokerBlocked,
    BrokerError,
    BrokerRefused,
    ConnectionFailed,
    EventTooLarge,
    SendError,
    SendTimeout,
    TopologyMismatch,
    Unroutable,
)
from domain_events.jitter import between
from domain_events.settings import Broker
from domain_events.transport.connection import Connection
from domain_events.transport.declaring import declare_exchange, declare_queue, open_channel
from domain_events.transport.direct import DirectConnection
from domain_events.transport.io_thread import IOThread
from domain_events.transport.nacks import Nacks, nacked
from domain_events.transport.outgoing import Outgoing
from domain_events.transport.problems import channel_problem, is_reproach, refuses_all
from domain_events.transport.proof import DOUBT, REST, Proof
from domain_events.transport.publication import Publication, State
from domain_events.transport.script import Script, Steps
from domain_events.transport.topology import Queue
from domain_events.transport.window import Window

logger = logging.getLogger(__name__)

LONGEST_SILENCE = 15.0
"""Seconds without an answer, after which a connection is given up. Its heartbeats prove nothing: they go on while the
broker's side of a channel hangs (seen with RabbitMQ 3.10.8 and a queue that a crash had damaged)."""

MOST_PATIENCE = 600.0
"""Seconds. The silence that is borne doubles each time that it came to nothing: a queue without a majority of its
nodes confirms nothing either, and what is sent to it again and again arrives as often in the end."""


_IN_FLIGHT, _DONE = State.IN_FLIGHT, State.DONE


class Publisher:
    """Belongs into the I/O thread. Connects when something is submitted; after a loss it sends again what was not
    confirmed, in the old order, until the owner cancels it."""

    def __init__(
        self,
        io: IOThread,
        brokers: Sequence[Broker],
        *,
        name: str,
        exchange: str | None = None,
        longest_pause: float = 2.0,
        longest_silence: float = LONGEST_SILENCE,
        asks_for_proof: bool = False,
    ) -> None:
        """`asks_for_proof`: a connection that may be dead is put to the test, see `proof`."""
        self._io = io
        self._exchange = exchange
        self._longest_pause = longest_pause
        self._longest_silence = longest_silence
        self._connection = Connection(
            io, brokers, name=name, opened=self._on_opened, lost=self._on_lost, unblocked=self._pump
        )
        self._login_began = 0.0
        self.login_time = 0.0
        """Seconds that it took to open the connection: several round trips, so more than any one answer should."""
        self._amqp: DirectConnection | None = None
        self._opening = False
        self._script: Script[Channel] | None = None
        self._declaring: Script[None] | None = None
        self._channel: Channel | None = None
        self._waiting: deque[Publication] = deque()
        self._pumping: object | None = None
        self._in_flight = Window()
        self._outgoing: Outgoing | None = None
        self._given_up = 0  # of those that wait, or were when it was counted
        self._channel_since = 0.0
        self._nacks = Nacks(io, self.submit)
        self._declared: dict[str, float] = {}  # queue -> when, by this connection
        self._failures = 0
        self._pause: object | None = None
        self._exchange_was_missing = False
        self._suspects = 0  # how many publications to send one at a time, to find the one the broker objects to
        self.closing = False
        self._problem: BrokerError | None = None
        self._heard_at = 0.0
        self._patience = longest_silence
        self._watch: object | None = None
        self._watch_interval = min(1.0, longest_silence / 2)
        self._proof: Proof | None = None
        if asks_for_proof:
            self._proof = Proof(self._pump)
            self._watch_interval = min(self._watch_interval, DOUBT / 2)

    @property
    def problem(self) -> str | None:
        """Why nothing is confirmed at the moment; None when all is well."""
        return self._connection.blocked or (str(self._problem) if self._problem is not None else None)

    @property
    def silence(self) -> float:
        """For how many seconds the broker has answered nothing of what it was asked; 0 when it owes no answer."""
        if self._connection.blocked or not self._is_owed():
            return 0.0
        return time.monotonic() - max(self._heard_at, self._proof.heard_at if self._proof is not None else 0.0)

    @property
    def is_idle(self) -> bool:
        """Connected, and nothing is sent or waits for its confirm."""
        return self._channel is not None and not self._in_flight and not self._waiting

    def age(self, queue: Queue) -> float:
        """At least how many seconds ago `queue` was declared."""
        return time.monotonic() - self._declared.get(queue.name, time.monotonic())

    def submit(self, publication: Publication) -> None:
        """It goes out with all others that come in this turn of the loop."""
        self._waiting.append(publication)
        self._work()

    def submit_all(self, publications: Sequence[Publication]) -> None:
        """They go out at once."""
        self._waiting.extend(publications)
        if self._channel is not None:
            self._pump()
        else:
            self._work()

    def cancel(self, publication: Publication) -> None:
        """Do not send it again. Its `done` is not called any more; the broker may have it already."""
        if publication.state is State.WAITING:
            self._waiting.remove(publication)
        publication.state = State.DONE

    def forget_done(self, count: int) -> None:
        """So many have been finished by others, who give them up: what of them waits is not sent."""
        # Not each time: of thousands that wait, all may be given up one by one at the same moment.
        self._given_up += count
        if 2 * self._given_up > len(self._waiting):
            self._given_up = 0
            self._waiting = deque(publication for publication in self._waiting if publication.state is not State.DONE)

    def verdict(self, publication: Publication, timeout: float) -> SendError:
        """Why nobody waits for this one any longer, and whether it may have arrived."""
        problem = self.problem
        if publication.state is State.PAUSED:
            return nacked()
        if publication.attempts:
            return SendTimeout(
                f"no confirm within {timeout:g} s; the event may have arrived" + (f" ({problem})" if problem else "")
            )
        kind = ConnectionFailed
        if self._connection.blocked:
            kind = BrokerBlocked
        elif isinstance(self._problem, ConnectionFailed):
            kind = type(self._problem)
        return kind(f"not sent within {timeout:g} s: {problem or 'the broker does not answer'}")

    def distrust(self) -> None:
        """Drop a connection that takes what it is given and answers nothing; work goes on with a new one."""
        self._connection.drop()

    def close(self, closed: Callable[[], None]) -> None:
        """Leave the broker. What is not confirmed by now is not reported any more."""
        self.closing = True
        self._drop_scripts()
        self._channel = None
        for timer in (self._pause, self._watch, self._pumping):
            if timer is not None:
                self._io.cancel(timer)
        self._connection.close(closed)

    def forget(self) -> None:
        """In a forked child: see `Connection.forget`."""
        self._connection.forget()

    # Connecting

    def _work(self) -> None:
        if self._channel is not None:
            self._pump_soon()
        elif not (self._opening or self._pause or self.closing):
            self._open()

    def _open(self) -> None:
        self._pause = None
        if not self._has_work():
            return
        self._opening = True
        if self._connection.is_open:
            self._start_channel()
        else:
            self._login_began = time.monotonic()
            self._connection.open()

    def _on_opened(self, connection: DirectConnection) -> None:
        self._amqp = connection
        self.login_time = time.monotonic() - self._login_began
        self._start_channel()

    def _start_channel(self) -> None:
        self._expect_answer()
        self._heard_at = time.monotonic()
        self._script = Script(self._channel_steps(), done=self._on_channel, failed=self._on_channel_failed)
        self._script.start()

    def _channel_steps(self) -> Steps[Channel]:
        assert self._amqp is not None
        if not self._amqp.publisher_confirms:
            raise BrokerRefused(
                "the broker, or what stands before it, knows no publisher confirms: nobody could say what has arrived"
            )
        another = partial(open_channel, self._amqp, self._on_channel_closed)
        channel: Channel = yield another()
        self._heard_at = time.monotonic()
        if self._exchange is not None:
            channel = yield from declare_exchange(another, channel, self._exchange)
            self._heard_at = time.monotonic()
        channel.add_on_return_callback(self._on_return)
        yield lambda done: channel.confirm_delivery(self._on_confirm_frame, callback=done)
        self._amqp.confirms.expect(channel.channel_number, self._on_confirm)
        return channel

    def _on_channel(self, channel: Channel) -> None:
        self._opening = False
        self._problem = None
        self._channel = channel
        self._outgoing = Outgoing(channel)
        self._in_flight.begin()
        self._channel_since = time.monotonic()
        self._declared.clear()
        self._heard_at = time.monotonic()
        if self._proof is not None:
            self._proof.begin(channel, self.login_time)
        self._pump()

    def _on_channel_failed(self, error: Exception) -> None:
        self._opening = False
        problem = channel_problem(error)
        self._problem = problem
        if isinstance(problem, (BrokerRefused, TopologyMismatch)):
            self._fail_all(problem)
        else:
            self._pause_then_open()

    def _on_lost(self, error: SendError) -> None:
        self._opening = False
        self._problem = error
        self._drop_scripts()
        # Copies carry headers of others, which may be more than the broker bears. Events of our own do not.
        if self._exchange is None and self._channel is not None and is_reproach(error.__cause__):
            self._convict(error, error.__cause__)
        self._take_back()
        if isinstance(error, BrokerRefused) and self._channel is None:
            self._fail_all(error)
        self._forget_channel()
        self._pause_then_open()

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        if self.closing or isinstance(error, exceptions.ChannelClosedByClient):
            return
        if self._script is not None and self._script.running:
            self._script.throw(error)
            return
        if channel is not self._channel or not isinstance(error, exceptions.ChannelClosedByBroker):
            return  # of an earlier channel, or the whole connection is going: _on_lost follows
        self._forget_channel()
        self._failures = 0  # the broker is there and talks to us
        if self._declaring is not None and self._declaring.running:
            self._declaring.throw(error)
            self._take_back()
        elif error.reply_code == 404 and not self._exchange_was_missing:
            # The exchange was deleted under us. It is declared with the next channel.
            self._exchange_was_missing = True
            if len(self._in_flight) == 1:
                [refused] = self._in_flight
                refused.attempts -= 1
            self._take_back()
        else:
            self._convict(channel_problem(error), error)
        self._pause_then_open()

    def _forget_channel(self) -> None:
        self._channel = None
        if self._proof is not None:
            self._proof.end()

    def _renew_channel(self, channel: Channel) -> None:
        self._forget_channel()
        self._opening = True
        if channel.is_open:
            channel.close()
        self._start_channel()

    def _pause_then_open(self) -> None:
        if self.closing or self._pause is not None or not self._has_work():
            return
        # Full jitter, so that many senders do not come back in step. The first attempt is immediate.
        ceiling = min(self._longest_pause, 0.1 * 2**self._failures) if self._failures else 0.0
        self._failures = min(self._failures + 1, 20)
        self._pause = self._io.later(between(0, ceiling), self._open)

    def _drop_scripts(self) -> None:
        for script in (self._script, self._declaring):
            if script is not None and script.running:
                script.cancel()

    # Publishing

    def _has_work(self) -> bool:
        return any(publication.state is not State.DONE for publication in self._waiting)

    def _pump_soon(self) -> None:
        """When all is done that this turn of the loop brings: other events, or many confirms, may come with it."""
        if self._pumping is None:
            self._pumping = self._io.later(0, self._on_turn)

    def _on_turn(self) -> None:
        self._pumping = None
        self._pump()

    def _pump(self) -> None:
        """Give the broker what waits, as far as the window allows, in as few writes as possible."""
        self._fill_window()
        if self._outgoing is not None:
            self._outgoing.flush()

    def _fill_window(self) -> None:
        channel = self._channel
        # What a blocked connection is given is only kept in memory, and nobody can withdraw it any more.
        if channel is None or not channel.is_open or self._connection.blocked:
            return
        publication = self._next()
        if publication is None or not self._has_room_for(publication):
            return  # goes on with the next confirm
        if self._proof is not None and self._proof.is_needed(REST):
            self._expect_answer()
            self._proof.ask()
            return  # goes on with the answer
        if self._nacks.have_spoiled(self._channel_since):
            if not self._in_flight:
                self._renew_channel(channel)
            return  # goes on with the last confirm, or the new channel
        self._expect_answer()
        has_room_for = self._in_flight.has_room_for if self._suspects <= 0 else self._has_room_for
        while publication is not None and has_room_for(publication):
            if publication.needs is not None and publication.needs.name not in self._declared:
                self._declare(publication.needs)
                return  # goes on when the queue is there
            self._waiting.popleft()
            self._publish(publication)
            publication = self._next()

    def _next(self) -> Publication | None:
        while self._waiting:
            if (first := self._waiting[0]).state is not _DONE:
                return first
            self._waiting.popleft()
        return None

    def _has_room_for(self, publication: Publication) -> bool:
        if self._suspects > 0 and self._in_flight:
            return False
        return self._in_flight.has_room_for(publication)

    def _publish(self, publication: Publication) -> None:
        assert self._outgoing is not None
        publication.state = _IN_FLIGHT
        publication.attempts += 1
        publication.returned = False
        self._in_flight.add(publication)
        self._outgoing.add(publication)

    def _declare(self, queue: Queue) -> None:
        if self._declaring is not None and self._declaring.running:
            return
        channel = self._channel
        assert channel is not None

        def declared(_nothing: None) -> None:
            self._heard_at = self._declared[queue.name] = time.monotonic()
            self._pump()

        def failed(error: Exception) -> None:
            # Those that need this queue fail; _on_channel_closed opens a new channel for the others.
            problem = channel_problem(error)
            for publication in list(self._waiting):
                if publication.needs is not None and publication.needs.name == queue.name:
                    self._waiting.remove(publication)
                    publication.finish(problem)

        self._expect_answer()
        self._declaring = Script(declare_queue(channel, queue), done=declared, failed=failed)
        self._declaring.start()

    def _on_return(
        self, _channel: Channel, method: spec.Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        # basic.return names no delivery tag. It comes before the ack of the same message, so it is one of those in
        # flight with the same id (or none) and key. All of them count as returned: one whose queue was there a moment
        # before may wait for its ack still, and to take that one for it would lose the other.
        for publication in self._in_flight:
            if (
                publication.mandatory
                and publication.properties.message_id == properties.message_id
                and publication.routing_key == method.routing_key
                and publication.exchange == method.exchange
            ):
                publication.returned = True

    def _on_confirm_frame(self, frame: Any) -> None:
        method = frame.method
        self._on_confirm(method.delivery_tag, method.multiple, taken=isinstance(method, spec.Basic.Ack))

    def _on_confirm(self, tag: int, multiple: bool, taken: bool = True) -> None:
        self._heard_at = time.monotonic()
        if self._proof is not None:
            self._proof.heard()
        self._patience = self._longest_silence
        self._failures = 0
        publications = self._in_flight.take(tag, multiple)
        if publications:
            self._suspects = max(0, self._suspects - len(publications))
            self._exchange_was_missing = False
        for publication in publications:
            if not taken:
                self._nacks.note(publication)
            elif publication.returned:
                if publication.needs is not None:
                    self._declared.pop(publication.needs.name, None)
                where = f"exchange {publication.exchange!r}" if publication.exchange else "the default exchange"
                publication.finish(Unroutable(f"{where} has no queue for the routing key {publication.routing_key!r}"))
            else:
                if self._nacks.any_hopeless:
                    self._nacks.taken(publication)
                publication.finish(None)
        if self._waiting:
            self._work()

    # Silence

    def _is_owed(self) -> bool:
        """Whether the broker has been asked for something that it has not answered."""
        is_asked = self._proof is not None and self._proof.is_asked
        return bool(self._in_flight) or is_asked or self._runs_script()

    def _runs_script(self) -> bool:
        # Not any(): this is asked for each event.
        return (self._script is not None and self._script.running) or (
            self._declaring is not None and self._declaring.running
        )

    def _expect_answer(self) -> None:
        if not self._is_owed():
            self._heard_at = time.monotonic()
        if self._watch is None:
            self._watch = self._io.later(self._watch_interval, self._check_silence)

    def _check_silence(self) -> None:
        self._watch = None
        if self.closing or not self._is_owed():
            return
        if self._connection.blocked:
            self._heard_at = time.monotonic()
            if self._proof is not None:
                self._proof.excuse()
        elif self._proof is not None and self._is_dead(self._proof):
            logger.warning("the connection to the broker does not answer; connecting again")
            self.distrust()
            return
        elif time.monotonic() - self._heard_at >= self._patience:
            logger.warning(
                "the broker has not answered for %g s%s; connecting again", self._patience, self._let_others_go_first()
            )
            self._patience = min(self._patience * 2, MOST_PATIENCE)
            self.distrust()
            return
        self._watch = self._io.later(self._watch_interval, self._check_silence)

    def _is_dead(self, proof: Proof) -> bool:
        if self._channel is None:
            return self._runs_script() and time.monotonic() - self._heard_at >= proof.patience
        if self._in_flight and proof.is_needed(DOUBT):
            proof.ask()
        return proof.has_failed()

    def _let_others_go_first(self) -> str:
        """A queue that answers nothing must not stop the copies for other queues. Returns its name, for the log.

        Only what needs a queue of its own may change its place: events are sent in their order.
        """
        self._take_back()
        # The oldest of those in flight, or the one whose queue is being declared.
        oldest = next((publication for publication in self._waiting if publication.state is State.WAITING), None)
        if oldest is None or oldest.needs is None:
            return ""
        suspects = [publication for publication in self._waiting if publication.routing_key == oldest.routing_key]
        others = [publication for publication in self._waiting if publication.routing_key != oldest.routing_key]
        self._waiting = deque([*others, *suspects])
        # One at a time: a channel that hangs with one of them has not confirmed the others that it took, either.
        self._suspects = len(self._waiting)
        return f" about {oldest.routing_key}"

    # Losing

    def _take_back(self) -> None:
        """Everything unconfirmed waits again, before what was not sent yet."""
        taken_back = self._in_flight.clear()
        for publication in taken_back:
            if publication.state is State.IN_FLIGHT:
                publication.state = State.WAITING
        self._waiting.extendleft(reversed(taken_back))

    def _convict(self, problem: BrokerError, error: exceptions.ChannelClosed | exceptions.ConnectionClosed) -> None:
        """The broker closed the channel or the connection because of one publication, without saying which one.

        With one in flight it is that one. With several, all are sent again, one at a time: the next time it is clear,
        and the innocent ones are confirmed. (Those that the broker had taken already are duplicates then.)
        """
        flying = [publication for publication in self._in_flight if publication.state is State.IN_FLIGHT]
        # One that was given up counts too: it may be the one.
        if not len(flying) == len(self._in_flight) == 1:
            self._suspects = len(flying)
            self._take_back()
            return
        [accused] = flying
        self._in_flight.clear()
        self._suspects = 0 if self._suspects <= 1 else self._suspects - 1
        if error.reply_code == 406 and "larger than" in error.reply_text:
            problem = EventTooLarge(f"the event has {len(accused.body)} bytes: {error.reply_text}")
        accused.finish(_truth(problem, accused))
        if self._exchange is not None and refuses_all(error):
            self._fail_all(problem)

    def _fail_all(self, problem: BrokerError) -> None:
        self._take_back()
        self._suspects = 0
        while self._waiting:
            publication = self._waiting.popleft()
            publication.finish(_truth(problem, publication))


def _truth(problem: BrokerError, publication: Publication) -> BrokerError:
    """The problem as the owner of this publication shall see it. For nobody else: an exception is raised once."""
    mine = copy.copy(problem)
    if publication.was_sent_before and isinstance(problem, BrokerRefused):
        mine.args = (f"{problem}; an earlier attempt may have arrived",)
    return mine
