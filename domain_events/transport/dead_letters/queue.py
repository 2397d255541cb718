"""The dead-letter queue of a receiver, page by page: what nobody settles goes back into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from secrets import token_hex
from types import TracebackType
from typing import Any, Self, TypeVar

from pika import BasicProperties, exceptions, spec
from pika.channel import Channel

from domain_events.errors import BrokerError, NoSuchReceiver, SendError
from domain_events.settings import Broker
from domain_events.transport.dead_letters.letter import Letter
from domain_events.transport.outcomes import PREFIX, Outcome, read_outcome
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.script import Steps
from domain_events.transport.session import Another, Session
from domain_events.transport.tolerance import key_of
from domain_events.transport.topology import dead_letter_queue_name
from domain_events.transport.wire import replayed_properties

MOST_ON_A_PAGE = 500
LARGEST_PAGE = 16 * 1024 * 1024
"""Bytes of bodies, about: a page has fewer letters when there are large ones."""

FIRST_PAGE = 20
"""Letters, as long as nobody knows how large they are."""

QUIET = 0.25
"""Seconds without a letter, after which the queue is asked whether it has more."""

RETURN_PATIENCE = 30.0
"""Seconds to wait at the end until all is back in the queue."""

MOST_AT_ONCE = 16
"""Copies on their way that are not confirmed yet. A SIGKILL between confirm and ack leaves so many twice, at most."""

PATIENCE = 60.0
"""Seconds for one answer of the broker."""

LOCK = "domain-events.looking."
"""With the receiver's name, an exclusive queue: there is at most one look into its dead letters at a time. A second
one would find a part of them only, and both could replay the same."""

LOCK_PATIENCE = 15.0
"""Seconds to wait for the end of another look."""


T = TypeVar("T")


class Busy(BrokerError):
    """Somebody else looks at the dead letters of this receiver."""


class DeadLetterQueue:
    """Opened by `with`. Raises NoSuchReceiver, Busy, ConnectionFailed, BrokerRefused; so do its methods.

    Every letter that was seen stays with this look until it is settled or the look ends: a letter is seen once.
    """

    def __init__(self, brokers: Sequence[Broker], receiver: str, *, lock_patience: float = LOCK_PATIENCE) -> None:
        self.receiver = receiver
        self.count = 0
        """Letters in the queue at the beginning, as the broker counts them: about."""
        self.is_locked = True
        """Whether others are kept out. This login may not be allowed to."""
        self._name = dead_letter_queue_name(receiver)
        self._lock_patience = lock_patience
        self._session = Session(brokers, "dead-letters")
        self._publisher = Publisher(self._session.io, brokers, name="dead-letters")
        self._channel: Channel | None = None
        self._is_busy = False
        """With a script for the broker, which may not have come to its end."""
        self._pages = 0
        self.moved = 0
        """Letters that were replayed, in all."""
        self._held = 0  # letters that are not in the queue now, and not settled
        self._largest = LARGEST_PAGE // FIRST_PAGE  # bytes of a letter
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._outcome_queue: str | None = None

    def __enter__(self) -> Self:
        try:
            self._lock()
            self._run(self._open, PATIENCE)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._is_busy:  # else it was interrupted, or has failed
                with suppress(BrokerError):  # then the broker does it by itself, as soon as we are gone
                    self._run(self._give_back, PATIENCE)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._session.io.call(lambda: self._publisher.close(lambda: None))
        self._session.close()

    def pages(self) -> Iterator[list[Letter]]:
        """All that are there; no page is empty. The oldest need not be the first: RabbitMQ (seen on 3.10) mixes up what
        goes back."""
        while page := self._run(self._page, None):
            yield page

    def replay(self, letters: Sequence[Letter], replay: str, *, with_outcome: bool = False) -> None:
        """Back to the receiver they came from; returns when all are there, and gone from here.

        `replay`: a name for it, which they carry from then on. Interrupted, it leaves some twice, and loses none.
        """
        outcome_to = self._outcomes_to() if with_outcome else None
        for begin in range(0, len(letters), MOST_AT_ONCE):
            batch = letters[begin : begin + MOST_AT_ONCE]
            problem = self._run(partial(self._move, batch, replay, outcome_to), None)
            if problem is not None:
                raise problem

    def outcome(self, timeout: float) -> Outcome | None:
        """The next one of what was replayed `with_outcome`; None after `timeout` seconds."""
        try:
            return self._outcomes.get(timeout=timeout)
        except Empty:
            return None

    def discard(self, letters: Sequence[Letter]) -> None:
        """They are gone when this returns."""
        self._run(partial(self._ack, [letter.tag for letter in letters]), PATIENCE)

    def _run(self, steps: Callable[[Another], Steps[T]], timeout: float | None) -> T:
        self._is_busy = True
        result = self._session.run(steps, timeout)
        self._is_busy = False
        return result

    # Opening and closing

    def _lock(self) -> None:
        deadline = time.monotonic() + self._lock_patience
        while not self._run(self._take_lock, PATIENCE):
            if time.monotonic() >= deadline:
                raise Busy(
                    f"somebody else looks at the dead letters of {self.receiver} (domain-events dead-letters, or the "
                    "page of a supervisor); try again when they have finished"
                )
            time.sleep(0.2)

    def _take_lock(self, another: Another) -> Steps[bool]:
        channel: Channel = yield another()
        name = f"{LOCK}{self.receiver}"
        try:
            yield lambda done: channel.queue_declare(name, exclusive=True, auto_delete=True, callback=done)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == 405:  # another connection has it
                return False
            if error.reply_code != 403:
                raise
            self.is_locked = False
        return True

    def _open(self, another: Another) -> Steps[None]:
        channel: Channel = yield another()
        try:
            declared: Any = yield lambda done: channel.queue_declare(self._name, passive=True, callback=done)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == 404:
                raise NoSuchReceiver(f"there is no receiver {self.receiver!r} with dead letters") from error
            raise
        self.count = declared.method.message_count
        self._channel = channel

    def _give_back(self, another: Another) -> Steps[None]:
        channel = self._open_channel
        channel.basic_nack(0, multiple=True, requeue=True)
        # Nacks are not answered, and who looks next shall find everything.
        deadline = time.monotonic() + RETURN_PATIENCE
        while True:
            declared: Any = yield lambda done: channel.queue_declare(self._name, passive=True, callback=done)
            if declared.method.message_count >= self._held or time.monotonic() >= deadline:
                return
            yield lambda done: self._session.io.later(0.05, partial(done, None))

    @property
    def _open_channel(self) -> Channel:
        assert self._channel is not None, "the dead letters are looked at in a `with` block"
        return self._channel

    # Looking

    def _page(self, another: Another) -> Steps[list[Letter]]:
        # A new consumer for each page: RabbitMQ takes another prefetch for new consumers only, and the prefetch of each
        # counts for itself. What the old ones got stays with the channel.
        channel, page = self._open_channel, _Page(self._session, self._page_size)
        self._pages += 1
        tag = f"page-{self._pages:08}"
        yield lambda done: channel.basic_qos(prefetch_count=page.size, callback=done)
        yield lambda done: channel.basic_consume(self._name, page.on_message, consumer_tag=tag, callback=done)
        yield page.until_full_or_quiet
        if tag in channel.consumer_tags:  # else the broker has ended it, as the queue is gone
            # What still comes until it is answered, pika gives back.
            yield lambda done: channel.basic_cancel(tag, callback=done)
        if not page.letters:
            # Silence proves nothing: the queue itself must say that it has no more.
            yield partial(_get, channel, self._name, page)
        self._held += len(page.letters)
        self._largest = max(self._largest, *(len(letter.body) for letter in page.letters), 1)
        if self._pages == 1 and page.letters:
            self._largest = max(len(letter.body) for letter in page.letters)
        return page.letters

    @property
    def _page_size(self) -> int:
        return min(MOST_ON_A_PAGE, max(1, LARGEST_PAGE // max(1, self._largest)))

    # Settling

    def _move(
        self, letters: Sequence[Letter], replay: str, outcome_to: str | None, another: Another
    ) -> Steps[BrokerError | None]:
        channel = self._open_channel
        if not channel.is_open:  # they are in the queue again: copies would be there twice
            raise SendError("the connection to the broker was lost")
        moving = _Moving(channel, self._publisher)
        for letter in letters:
            copy = replayed_properties(letter.properties, letter.routing_key, replay, outcome_to)
            moving.submit(letter, self.receiver, copy)
        try:
            yield partial(moving.until_confirmed, self._session)
        finally:
            self._held -= moving.moved
            self.moved += moving.moved
        return moving.problem

    def _ack(self, tags: Sequence[int], another: Another) -> Steps[None]:
        channel = self._open_channel
        for tag in tags:
            channel.basic_ack(tag)
        self._held -= len(tags)
        # Acks are not answered; this is, after them.
        yield lambda done: channel.queue_declare(self._name, passive=True, callback=done)

    # Outcomes

    def _outcomes_to(self) -> str:
        if self._outcome_queue is None:
            self._outcome_queue = f"{PREFIX}{token_hex(16)}"
            self._run(self._listen, PATIENCE)
        return self._outcome_queue

    def _listen(self, another: Another) -> Steps[None]:
        channel: Channel = yield another()
        name = self._outcome_queue or ""
        yield lambda done: channel.queue_declare(name, exclusive=True, auto_delete=True, callback=done)
        yield lambda done: channel.basic_consume(name, self._on_outcome, auto_ack=True, callback=done)

    def _on_outcome(self, _channel: Channel, _method: Any, _properties: BasicProperties, body: bytes) -> None:
        outcome = read_outcome(body)
        if outcome is not None:
            self._outcomes.put(outcome)


class _Page:
    """Letters as they come. Belongs into the I/O thread."""

    def __init__(self, session: Session, size: int) -> None:
        self.letters: list[Letter] = []
        self.size = size
        self._bytes = 0
        self._io = session.io
        self._seen = 0
        self._full: Callable[[None], None] | None = None

    def on_message(self, _channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        self.letters.append(Letter(method.delivery_tag, key_of(method), properties, body))
        self._bytes += len(body)
        if self._is_full:
            self._tell()

    def until_full_or_quiet(self, done: Callable[[None], None]) -> None:
        """A step."""
        self._full = done
        if self._is_full:
            self._tell()
        else:
            self._io.later(QUIET, self._look)

    @property
    def _is_full(self) -> bool:
        return len(self.letters) >= self.size or self._bytes >= LARGEST_PAGE

    def _look(self) -> None:
        if self._seen == len(self.letters):
            self._tell()
        elif self._full is not None:
            self._seen = len(self.letters)
            self._io.later(QUIET, self._look)

    def _tell(self) -> None:
        told, self._full = self._full, None
        if told is not None:
            told(None)


def _get(channel: Channel, queue: str, page: _Page, done: Callable[[None], None]) -> None:
    """A step: one more letter for the page, if the queue has one."""

    def on_letter(_channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
        page.on_message(channel, method, properties, body)
        done(None)

    channel.add_callback(lambda _frame: done(None), [spec.Basic.GetEmpty], one_shot=True)
    channel.basic_get(queue, callback=on_letter)


class _Moving:
    """Copies on their way; each original is acked when its copy is confirmed. Belongs into the I/O thread."""

    def __init__(self, channel: Channel, publisher: Publisher) -> None:
        self.moved = 0
        self.problem: BrokerError | None = None
        self._channel = channel
        self._publisher = publisher
        self._under_way: dict[int, Publication] = {}
        self._told: Callable[[None], None] | None = None

    def submit(self, letter: Letter, target: str, properties: BasicProperties) -> None:
        publication = Publication(
            exchange="",
            routing_key=target,
            properties=properties,
            body=letter.body,
            mandatory=True,
            done=partial(self._on_confirmed, letter.tag),
        )
        self._under_way[letter.tag] = publication
        self._publisher.submit(publication)

    def until_confirmed(self, session: Session, done: Callable[[None], None]) -> None:
        """A step."""
        self._told = done
        session.io.later(PATIENCE, self._give_up)
        self._look()

    def _on_confirmed(self, tag: int, error: BrokerError | None) -> None:
        del self._under_way[tag]
        if error is not None:
            self.problem = self.problem or error
        elif self._channel.is_open:
            # Only now: a crash before this leaves two of the event, the other order none.
            self._channel.basic_ack(tag)
            self.moved += 1
        else:
            self.problem = self.problem or SendError("the connection was lost; some of the events may come twice")
        self._look()

    def _give_up(self) -> None:
        if self._told is not None:
            why = self._publisher.problem or "the broker does not answer"
            self.problem = self.problem or SendError(f"no confirm for {PATIENCE:g} s: {why}")
            for publication in self._under_way.values():
                self._publisher.cancel(publication)
            self._under_way.clear()
            self._look()

    def _look(self) -> None:
        if not self._under_way and self._told is not None:
            told, self._told = self._told, None
            told(None)
