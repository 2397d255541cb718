"""Threads and coroutines on a real broker: how many events are in hand, what is acked, and what a supervisor asks."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from domain_events import BrokerRefused, DomainEvent, NullObserver, Receiver, Retry, Sender, TopologyMismatch
from domain_events.handling import consume
from domain_events.oversight import Oversight, Suspicion
from domain_events.registration import Registration
from domain_events.settings import configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.session import declare_topology
from tests.brokers import Broker, Queues
from tests.consuming import Consuming, Seen, consuming
from tests.deliveries import Told
from tests.growing import whole_lines
from tests.processes import Processes
from tests.registrations import register
from tests.relay import relay
from tests.waiting import wait_until


class Crowd:
    """A handler that keeps its events until it is told to let them go; `inside` are those in it now."""

    def __init__(self) -> None:
        self.inside: list[Any] = []
        self.done: list[Any] = []
        self.together: list[list[Any]] = []
        self._go_on: dict[Any, threading.Event] = {}
        self._door = threading.Lock()

    def __call__(self, event: DomainEvent) -> None:
        self._enter(event)
        self._sign(event.data).wait(60)
        self._leave(event)

    async def wait(self, event: DomainEvent) -> None:
        """The same as a coroutine."""
        self._enter(event)
        while not self._sign(event.data).is_set():
            await asyncio.sleep(0.002)
        self._leave(event)

    def let_go(self, *data: Any) -> None:
        for each in data:
            self._sign(each).set()

    def wait_inside(self, n: int) -> list[Any]:
        wait_until(lambda: len(self.inside) == n, what=f"{n} events in hand")
        return list(self.inside)

    def _sign(self, data: Any) -> threading.Event:
        # One for both, whoever asks first: a defaultdict may make two at the same time.
        return self._go_on.setdefault(data, threading.Event())

    def _enter(self, event: DomainEvent) -> None:
        with self._door:
            self.together.append([*self.inside, event.data])
            self.inside.append(event.data)

    def _leave(self, event: DomainEvent) -> None:
        self.inside.remove(event.data)
        self.done.append(event.data)


def crowded(broker: Broker, name: str, key: str, how: str, n: int, **given: Any) -> tuple[Receiver, Crowd]:
    """A receiver with a crowd of `n` threads or coroutines as its handler, declared."""
    crowd, receiver = Crowd(), Receiver(broker.url)
    if how == "threads":
        receiver.register(crowd, name, [key], threads=n, **given)
    else:
        receiver.register(crowd.wait, name, [key], concurrency=n, **given)
    receiver.declare()
    return receiver, crowd


BOTH = pytest.mark.parametrize("how", ["threads", "coroutines"])


# At the same time


def test_eight_threads_are_in_the_handler_at_the_same_time(broker: Broker, queues: Queues, unique: str) -> None:
    barrier = threading.Barrier(8)
    seen = Seen(lambda _event: barrier.wait(30))  # opens when all eight are there
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "r"), [unique + "key"], threads=8)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(16)])
    with consuming(receiver):
        seen.wait(16)
    queues.wait_count(unique + "r", 0)
    assert queues.count(unique + "r:dead") == 0
    assert not barrier.broken


@BOTH
def test_as_many_events_are_in_hand_as_asked_for_and_no_more(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name = queues.forget_after(unique + "r")
    receiver, crowd = crowded(broker, name, unique + "key", how, 30)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(100)])
    with consuming(receiver):
        crowd.wait_inside(30)
        crowd.let_go(*range(100))
        wait_until(lambda: len(crowd.done) == 100, what="all handled")
    assert sorted(crowd.done) == list(range(100))
    assert max(map(len, crowd.together)) == 30
    queues.wait_count(name, 0)


@BOTH
def test_what_ends_out_of_order_is_acked_and_what_is_in_hand_is_not(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name = queues.forget_after(unique + "r")
    with relay(broker.url) as wire:
        receiver, crowd = crowded(Broker(wire.url), name, unique + "key", how, 4, prefetch=4)
        sender = Sender(broker.url)
        sender.send_many([(unique + "key", n) for n in range(20)])
        with consuming(receiver):
            first, *_ = crowd.wait_inside(4)
            others = set(range(20)) - {first}
            crowd.let_go(*others)
            wait_until(lambda: set(crowd.done) == others, what="all handled but the first")
            # The broker sends three more to a consumer with a prefetch of four: it knows that all others are done.
            sender.send_many([(unique + "key", n) for n in range(20, 23)])
            assert set(crowd.wait_inside(4)) == {first, 20, 21, 22}
            with wire.away():
                queues.wait_count(name, 4)  # and that these are not
            crowd.let_go(*range(23))
            wait_until(lambda: len(crowd.done) == 27, what="all handled, four of them twice")
            queues.wait_count(name, 0)
    assert collections.Counter(crowd.done) == {n: 1 if n in others else 2 for n in range(23)}


# Stopping


@BOTH
def test_a_stop_finishes_all_that_is_in_hand_and_gives_back_the_rest_at_once(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name = queues.forget_after(unique + "r")
    receiver, crowd = crowded(broker, name, unique + "key", how, 5)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(40)])
    running = Consuming(receiver)
    in_hand = crowd.wait_inside(5)
    receiver.stop_consuming()
    queues.wait_count(name, 35)
    assert not running.ended
    for each in reversed(in_hand):
        crowd.let_go(each)
    wait_until(lambda: running.ended, what="the end")
    assert running.error is None
    assert sorted(crowd.done) == sorted(in_hand)
    queues.wait_count(name, 35)
    with consuming(receiver):  # again
        crowd.let_go(*range(40))
        wait_until(lambda: len(crowd.done) == 40, what="the rest handled")
    assert sorted(crowd.done) == list(range(40))
    queues.wait_count(name, 0)


CONSUMER = """
import asyncio, os, random, sys, threading, time
from domain_events import Receiver
url, how, name, key, log = sys.argv[1:]
out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(*words):
    os.write(out, (" ".join(map(str, words)) + "\\n").encode())
receiver = Receiver(url)
def handle(event):
    say("begun", event.data)
    time.sleep(random.uniform(0, 0.03))
    if event.data % 10 == 0:
        raise ValueError(event.data)
    say("handled", event.data)
async def handle_async(event):
    say("begun", event.data)
    await asyncio.sleep(random.uniform(0, 0.03))
    if event.data % 10 == 0:
        raise ValueError(event.data)
    say("handled", event.data)
if how == "threads":
    receiver.register(handle, name, [key], threads=8)
else:
    receiver.register(handle_async, name, [key], concurrency=8)
receiver.start_consuming()
say("threads", *sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("de-")))
"""


@BOTH
def test_handled_and_queued_and_dead_is_sent_when_sigterm_comes_in_the_middle(
    broker: Broker, queues: Queues, unique: str, processes: Processes, tmp_path: Path, how: str
) -> None:
    name, log = queues.forget_after(unique + "r"), tmp_path / "log"
    crowded(broker, name, unique + "key", "threads", 1)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(400)])
    process = processes.start([sys.executable, "-c", CONSUMER, broker.url, how, name, unique + "key", str(log)])
    wait_until(lambda: log.exists() and log.read_text().count("handled") > 50, what="some handled")
    process.terminate()
    assert process.wait() == 0
    begun, handled = words(log, "begun"), words(log, "handled")
    assert len(set(begun)) == len(begun)  # nothing came twice
    queues.wait_count(f"{name}:dead", len(begun) - len(handled))
    assert {n for n in begun if n % 10} == set(handled)
    queues.wait_count(name, 400 - len(begun))
    left = [DomainEvent.from_json(body).data for _, _, body in queues.drain(name)]
    dead = [DomainEvent.from_json(body).data for _, _, body in queues.drain(f"{name}:dead")]
    assert sorted([*handled, *left, *dead]) == list(range(400))
    assert log.read_text().splitlines()[-1] == "threads"  # none of ours is left


@BOTH
def test_all_that_is_not_finished_comes_again_when_a_consumer_is_killed_in_the_middle(
    broker: Broker, queues: Queues, unique: str, processes: Processes, tmp_path: Path, how: str
) -> None:
    name, log = queues.forget_after(unique + "r"), tmp_path / "log"
    crowded(broker, name, unique + "key", "threads", 1)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(400)])
    command = [sys.executable, "-c", CONSUMER, broker.url, how, name, unique + "key", str(log)]
    for times in range(1, 4):
        process = processes.start(command)
        wait_until(lambda times=times: log.exists() and len(set(words(log, "handled"))) > 40 * times, what="some")
        process.kill()
        process.wait()
    last = processes.start(command)
    good = {n for n in range(400) if n % 10}
    wait_until(lambda: set(words(log, "handled")) == good, 60, "all handled")
    dead = set[int]()

    def all_dead() -> bool:
        dead.update(DomainEvent.from_json(body).data for _, _, body in queues.drain(f"{name}:dead"))
        return dead >= set(range(400)) - good

    wait_until(all_dead, what="the others set aside")
    last.terminate()
    assert last.wait() == 0
    assert not dead & good
    queues.wait_count(name, 0)


def words(log: Path, word: str) -> list[int]:
    return [int(line.split()[1]) for line in whole_lines(log) if line.startswith(f"{word} ")]


# Coroutines


def test_a_coroutine_that_outlives_its_timeout_is_cancelled_and_dead_lettered_and_the_others_go_on(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, cancelled, seen = queues.forget_after(unique + "r"), list[Any](), list[Any]()
    receiver = Receiver(broker.url)

    @receiver.handles(name, [unique + "key"], timeout=0.3, concurrency=2)
    async def handle(event: DomainEvent) -> None:
        if event.data == "late":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(event.data)
                raise
        seen.append(event.data)

    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", data) for data in ("late", 1, 2, 3)])
    with consuming(receiver):
        queues.wait_count(f"{name}:dead", 1)
        wait_until(lambda: sorted(seen) == [1, 2, 3], what="the others handled")
    [(_, properties, body)] = queues.drain(f"{name}:dead")
    assert DomainEvent.from_json(body).data == "late"
    assert properties.headers is not None
    assert properties.headers["domain-events-reason"] == "the handler did not end within 0.3 s"
    assert properties.headers["domain-events-error-type"] == "TimeoutError"
    assert "in handle" in properties.headers["domain-events-traceback"]
    assert cancelled == ["late"]


def test_coroutines_retry_and_dead_letter_as_plain_handlers_do(broker: Broker, queues: Queues, unique: str) -> None:
    name, retries = queues.forget_after(unique + "r", 10), list[int]()
    receiver = Receiver(broker.url)

    @receiver.handles(name, [unique + "key"], max_retries=2)
    async def handle(event: DomainEvent) -> None:
        retries.append(event.retries)
        await asyncio.sleep(0)
        raise Retry(0.01)

    receiver.declare()
    Sender(broker.url).send(unique + "key", None)
    with consuming(receiver):
        queues.wait_count(f"{name}:dead", 1)
    assert retries == [0, 1, 2]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
@BOTH
def test_an_error_that_would_end_a_program_ends_its_event_only(
    broker: Broker, queues: Queues, unique: str, how: str, error: BaseException
) -> None:
    name, seen, receiver = queues.forget_after(unique + "r"), list[Any](), Receiver(broker.url)

    def handle(event: DomainEvent) -> None:
        if event.data == 0:
            raise error
        seen.append(event.data)

    async def handle_async(event: DomainEvent) -> None:
        await asyncio.sleep(0)
        handle(event)

    if how == "threads":
        receiver.register(handle, name, [unique + "key"], threads=2)
    else:
        receiver.register(handle_async, name, [unique + "key"], concurrency=2)
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(5)])
    with consuming(receiver):
        queues.wait_count(f"{name}:dead", 1)
        wait_until(lambda: sorted(seen) == [1, 2, 3, 4], what="the others handled")
    [(_, properties, _)] = queues.drain(f"{name}:dead")
    assert (properties.headers or {})["domain-events-reason"] == f"the handler raised {type(error).__name__}"


def test_heartbeats_go_on_while_a_coroutine_blocks_the_loop(broker: Broker, queues: Queues, unique: str) -> None:
    name, seen, receiver = queues.forget_after(unique + "r"), list[Any](), Receiver(broker.url + "?heartbeat=1")

    @receiver.handles(name, [unique + "key"])
    async def handle(event: DomainEvent) -> None:
        seen.append(event.data)
        time.sleep(5)  # the mistake

    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        wait_until(lambda: seen, what="the event begun")
    assert seen == [1]
    queues.wait_count(name, 0)


def test_what_a_coroutine_left_behind_holds_nothing_up(broker: Broker, queues: Queues, unique: str) -> None:
    name, ended, receiver = queues.forget_after(unique + "r"), list[str](), Receiver(broker.url)
    kept = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("leftover")

    @receiver.handles(name, [unique + "key"])
    async def handle(event: DomainEvent) -> None:
        kept.append(asyncio.create_task(leftover()))
        await asyncio.sleep(0)

    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(3)])
    with consuming(receiver):
        wait_until(lambda: len(kept) == 3, what="three handled")
        assert ended == []
    assert ended == ["leftover"] * 3
    queues.wait_count(name, 0)


# All kinds in one process


def test_plain_threads_and_coroutines_work_side_by_side_and_can_start_again(
    broker: Broker, queues: Queues, unique: str
) -> None:
    receiver, where = Receiver(broker.url), collections.defaultdict[str, set[str]](set)
    barrier = threading.Barrier(3)

    def handle(event: DomainEvent) -> None:
        where["plain" if event.routing_key.endswith("plain") else "pool"].add(threading.current_thread().name)
        barrier.wait(30)

    async def handle_async(event: DomainEvent) -> None:
        where["async"].add(threading.current_thread().name)
        await asyncio.to_thread(barrier.wait, 30)

    receiver.register(handle, queues.forget_after(unique + "plain"), [unique + "plain"])
    receiver.register(handle, queues.forget_after(unique + "pool"), [unique + "pool"], threads=2)
    receiver.register(handle_async, queues.forget_after(unique + "async"), [unique + "async"])
    receiver.declare()
    for times in range(1, 3):
        # Each kind waits for one of both others.
        Sender(broker.url).send_many([(unique + kind, times) for kind in ("plain", "pool", "async")])
        where.clear()
        running = Consuming(receiver)
        wait_until(lambda: len(where) == 3 and barrier.n_waiting == 0, what="all three handled")
        for kind in ("plain", "pool", "async"):
            queues.wait_count(unique + kind, 0)
        running.stop()
        assert running.error is None
        assert not [thread for thread in threading.enumerate() if thread.name.startswith(("de-handler", "de-asyncio"))]
    assert where["pool"] <= {"de-handler-1", "de-handler-2"}
    assert where["async"] == {"de-asyncio"}
    assert not barrier.broken


def test_an_error_that_ends_the_consumer_waits_for_what_is_in_hand(broker: Broker, queues: Queues, unique: str) -> None:
    name, other = queues.forget_after(unique + "r"), queues.forget_after(unique + "other")
    receiver, crowd = crowded(broker, name, unique + "key", "threads", 2)
    Sender(broker.url).send_many([(unique + "key", n) for n in range(2)])
    # Its many bindings take a while, then somebody else's exclusive consumer is in its way.
    receiver.register(print, other, [f"{unique}other.{n}" for n in range(300)], queue_type="classic")
    receiver.declare()
    queues.channel.basic_consume(other, lambda *_: None, exclusive=True)
    running = Consuming(receiver)
    crowd.wait_inside(2)
    queues.wait_count(name, 2)  # the connection is gone
    assert not running.ended
    crowd.let_go(0, 1)
    wait_until(lambda: running.ended, what="the end")
    assert isinstance(running.error, BrokerRefused)
    assert sorted(crowd.done) == [0, 1]


# Losing the connection


@BOTH
def test_events_whose_connection_was_lost_come_again_and_those_that_waited_are_handled_once(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name = queues.forget_after(unique + "r")
    with relay(broker.url) as wire:
        receiver, crowd = crowded(Broker(wire.url), name, unique + "key", how, 3)
        Sender(broker.url).send_many([(unique + "key", n) for n in range(10)])
        with consuming(receiver):
            in_hand = crowd.wait_inside(3)
            with wire.away():
                queues.wait_count(name, 10)
            crowd.let_go(*range(10))
            wait_until(lambda: len(crowd.done) == 13, what="all handled, three of them twice")
            queues.wait_count(name, 0)
    assert collections.Counter(crowd.done) == {n: 2 if n in in_hand else 1 for n in range(10)}


# Forks


FORKING = """
import multiprocessing, sys, time
from domain_events import Receiver
url, name, key, how = sys.argv[1:]
receiver = Receiver(url)
def fork():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    print("child ended with", child.exitcode, flush=True)
async def fork_async(event):
    fork()
if how == "threads":
    receiver.register(lambda event: fork(), name, [key], threads=2)
else:
    receiver.register(fork_async, name, [key])
receiver.start_consuming()
print("stopped", flush=True)
"""


@BOTH
def test_a_process_that_a_handler_in_another_thread_forked_can_be_terminated_and_the_consumer_goes_on(
    broker: Broker, queues: Queues, unique: str, processes: Processes, how: str
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    crowded(broker, name, key, "threads", 1)
    process = processes.start([sys.executable, "-c", FORKING, broker.url, name, key, how])
    for n in range(1, 4):
        Sender(broker.url).send(key, n)
        wait_until(lambda n=n: process.output().count("child ended with -15") == n, what="the child terminated")
    queues.wait_count(name, 0)
    assert process.returncode is None
    process.terminate()
    process.wait_output("stopped")
    assert process.wait() == 0
    assert queues.count(f"{name}:dead") == 0


# A single active consumer


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_of_several_consumers_one_is_active_and_another_takes_over_in_order(
    broker: Broker, queues: Queues, unique: str, queue_type: Any
) -> None:
    name, seen = queues.forget_after(unique + "r"), list[tuple[str, Any]]()

    class Subscribed(NullObserver):
        def __init__(self) -> None:
            self.event = threading.Event()

        def consuming(self) -> None:
            self.event.set()

    @contextlib.contextmanager
    def process(mine: str) -> Iterator[None]:
        registration = register(
            lambda event: seen.append((mine, event.data)),
            name,
            [unique + "key"],
            connection_settings=broker.url,
            single_active=True,
            queue_type=queue_type,
        )
        told = Subscribed()
        with overseen([registration], Overseer(), told):
            assert told.event.wait(20)
            yield

    sender = Sender(broker.url)
    with contextlib.ExitStack() as second:
        with process("first"):
            second.enter_context(process("second"))
            sender.send_many([(unique + "key", n) for n in range(20)])
            wait_until(lambda: len(seen) == 20, what="twenty handled")
        sender.send_many([(unique + "key", n) for n in range(20, 40)])
        wait_until(lambda: len(seen) == 40, what="forty handled")
    assert seen == [("first" if n < 20 else "second", n) for n in range(40)]


@pytest.mark.parametrize(
    ("there", "says"), [(False, "asked for true, there is none"), (True, "asked for none, there is true")]
)
def test_an_existing_queue_that_differs_is_refused_with_both_values_and_the_way_out(
    broker: Broker, queues: Queues, unique: str, there: bool, says: str
) -> None:
    name = queues.forget_after(unique + "r")
    brokers = configured_brokers(broker.url, "consumer")
    assert brokers is not None
    declare_topology([register(print, name, single_active=there)], brokers, 20)
    with pytest.raises(TopologyMismatch, match="another 'x-single-active-consumer'") as refused:
        declare_topology([register(print, name, single_active=not there)], brokers, 20)
    assert says in str(refused.value)
    assert "domain-events topology plan" in str(refused.value)


def consumers(queues: Queues, name: str) -> int:
    if queues.count(name) is None:
        return 0
    return int(queues.channel.queue_declare(name, passive=True).method.consumer_count)


# What a supervisor wants


class Overseer:
    """An oversight that writes down what it is told, in threads of this test."""

    def __init__(self) -> None:
        self.beats: list[float] = []
        self.threads: set[str] = set()
        self.forced: list[bool] = []
        self.suspicions: dict[str, Suspicion] = {}

    def oversight(self, beat_every: float = 0.1) -> Oversight:
        return Oversight(forced=self.forced.append, judge=self.suspicions.get, beat=self._beat, beat_every=beat_every)

    def _beat(self) -> None:
        self.beats.append(time.monotonic())
        self.threads.add(threading.current_thread().name)


@contextlib.contextmanager
def overseen(
    registrations: Sequence[Registration], overseer: Overseer, told: NullObserver | None = None
) -> Iterator[Stop]:
    """`consume` in a thread, as in a child of the supervisor."""
    stop, errors = Stop(), list[BaseException]()

    def run() -> None:
        try:
            consume(registrations, stop=stop, observer=told, oversight=overseer.oversight())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.request()
        thread.join(30)
        assert not thread.is_alive()
        stop.close()
    assert errors == []


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("how", ["plain", "threads", "coroutines"])
def test_a_condemned_event_is_dead_lettered_with_cause_and_stacks_and_its_neighbours_are_handled(
    broker: Broker, queues: Queues, unique: str, how: str, queue_type: Any
) -> None:
    name, overseer, told = queues.forget_after(unique + "r"), Overseer(), Told()
    receiver, crowd = crowded(
        broker, name, unique + "key", "threads" if how == "plain" else how, 1 if how == "plain" else 3,
        queue_type=queue_type, max_retries=5,
    )  # fmt: skip
    crowd.let_go(*range(5))
    sent = Sender(broker.url).send_many([(unique + "key", n) for n in range(5)])
    overseer.suspicions[sent[2].uuid_string] = Suspicion(
        deaths=2, cause="SIGSEGV", stacks="Fatal Python error: Segmentation fault\n" * 1000, condemned=True
    )
    with overseen(receiver.registrations, overseer, told):
        queues.wait_count(f"{name}:dead", 1)
        wait_until(lambda: len(crowd.done) == 4, what="the neighbours handled")
    [(_, properties, body)] = queues.drain(f"{name}:dead")
    assert DomainEvent.from_json(body) == sent[2]
    headers = properties.headers or {}
    assert headers["domain-events-reason"] == "consumer died 2x (SIGSEGV)"
    assert headers["domain-events-error-type"] == "ConsumerDied"
    assert headers["domain-events-retries"] == 0
    assert headers["domain-events-traceback"].startswith("Fatal Python error")
    assert len(headers["domain-events-traceback"]) == 16_000
    assert sorted(crowd.done) == [0, 1, 3, 4]
    assert ("started", sent[2].uuid_string) not in told.words
    assert ("dead-lettered", "consumer died 2x (SIGSEGV)") in told.words
    queues.wait_count(name, 0)


@BOTH
def test_a_suspect_is_in_hand_alone_and_the_others_together(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name, overseer = queues.forget_after(unique + "r"), Overseer()
    receiver, crowd = crowded(broker, name, unique + "key", how, 4)
    plain = Crowd()
    receiver.register(plain, queues.forget_after(unique + "plain"), [unique + "plain"])
    receiver.declare()
    sent = Sender(broker.url).send_many([(unique + "key", n) for n in range(12)])
    for n in (5, 6):
        overseer.suspicions[sent[n].uuid_string] = Suspicion(deaths=1, cause="exit 3", condemned=False)
    with overseen(receiver.registrations, overseer):
        crowd.wait_inside(4)
        crowd.let_go(0, 1, 2, 3)
        # 4 has begun, perhaps; 5 waits for it, and 6, 7 wait behind 5.
        wait_until(lambda: crowd.inside == [4], what="4 in hand")
        crowd.let_go(4)
        wait_until(lambda: crowd.inside == [5], what="the first suspect alone")
        Sender(broker.url).send(unique + "plain", "plain")
        queues.wait_count(unique + "plain", 0)
        assert plain.inside == []
        crowd.let_go(*range(6, 12))
        plain.let_go("plain")
        crowd.let_go(5)
        wait_until(lambda: len(crowd.done) == 12 and plain.done, what="all handled")
    assert [5] in crowd.together
    assert [6] in crowd.together
    assert not [group for group in crowd.together if len(group) > 1 and {5, 6} & set(group)]
    queues.wait_count(name, 0)


@BOTH
def test_what_waits_for_a_suspect_goes_back_at_once_in_a_stop(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name, overseer, told = queues.forget_after(unique + "r"), Overseer(), Told()
    receiver, crowd = crowded(broker, name, unique + "key", how, 4)
    sent = Sender(broker.url).send_many([(unique + "key", n) for n in range(8)])
    overseer.suspicions[sent[0].uuid_string] = Suspicion(deaths=1, cause="exit 3", condemned=False)
    overseer.suspicions[sent[1].uuid_string] = Suspicion(deaths=1, cause="exit 3", condemned=False)
    with overseen(receiver.registrations, overseer, told) as stop:
        wait_until(lambda: len(crowd.inside) == 1, what="one in hand")
        [alone] = crowd.inside
        stop.request()
        queues.wait_count(name, 7)
        assert crowd.inside == [alone]
        crowd.let_go(alone)
    assert crowd.done == [alone]
    assert [word for word, _ in told.words] == ["started", "handled"]
    queues.wait_count(name, 7)


def test_signs_of_life_go_on_while_the_handler_is_in_c_code_and_during_a_drain(
    broker: Broker, queues: Queues, unique: str
) -> None:
    go_on = threading.Lock()
    go_on.acquire()
    name, overseer, seen = queues.forget_after(unique + "r"), Overseer(), Seen(lambda _: go_on.acquire(timeout=120))
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    with overseen(receiver.registrations, overseer) as stop:
        seen.wait(1)
        # It is at work until it is let go: whoever waited for it would wait for ever.
        n = len(overseer.beats)
        wait_until(lambda: len(overseer.beats) >= n + 5, what="signs of life")
        stop.request()
        n = len(overseer.beats)
        wait_until(lambda: len(overseer.beats) >= n + 5, what="signs of life during the drain")
        go_on.release()
    assert overseer.threads == {"de-io"}


def test_signs_of_life_go_on_while_the_broker_is_away_and_while_it_says_nothing(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, overseer, seen = queues.forget_after(unique + "r"), Overseer(), Seen()
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url + "?connection_timeout=300000")  # which nobody waits for
        receiver.register(seen, name, [unique + "key"])
        receiver.declare()
        with overseen(receiver.registrations, overseer):
            Sender(broker.url).send(unique + "key", 1)
            seen.wait(1)
            wire.deaf = True
            links = len(wire.links)
            wire.cut()
            wait_until(lambda: len(wire.links) > links, what="an attempt to come back")
            n = len(overseer.beats)
            wait_until(lambda: len(overseer.beats) > n + 10, what="signs of life while the broker says nothing")
            wire.close()  # now nobody listens
            wire.cut()
            n = len(overseer.beats)
            wait_until(lambda: len(overseer.beats) > n + 10, what="signs of life while nobody listens")


def test_signs_of_life_go_on_offline(unique: str) -> None:
    overseer, receiver = Overseer(), Receiver(None)
    receiver.register(print, unique + "r", [unique + "key"])
    with overseen(receiver.registrations, overseer):
        wait_until(lambda: len(overseer.beats) > 10, what="signs of life")


def test_an_overseer_that_fails_is_logged_once_and_everything_goes_on(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Overseer):
        def oversight(self, beat_every: float = 0.05) -> Oversight:
            return Oversight(forced=self.forced.append, judge=self._fail, beat=self._fail, beat_every=beat_every)

        def _fail(self, *_: str) -> None:
            raise RuntimeError("ours")

    name, seen, receiver = queues.forget_after(unique + "r"), Seen(), Receiver(broker.url)
    receiver.register(seen, name, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(20)])
    with overseen(receiver.registrations, Broken()):
        seen.wait(20)
    queues.wait_count(name, 0)
    assert len([record for record in caplog.records if "oversight" in record.getMessage()]) == 2  # judge, beat


@BOTH
def test_sigquit_tells_the_overseer_whether_any_event_is_in_hand(
    broker: Broker, queues: Queues, unique: str, how: str
) -> None:
    name, overseer = queues.forget_after(unique + "r"), Overseer()
    receiver, crowd = crowded(broker, name, unique + "key", how, 3)
    with overseen(receiver.registrations, overseer) as stop:
        wait_until(lambda: consumers(queues, name) == 1, what="the consumer")
        os.write(stop.wakeup_fd, bytes([signal.SIGQUIT]))  # as Python does when the signal comes
        wait_until(lambda: overseer.forced == [False], what="the first word")
        Sender(broker.url).send_many([(unique + "key", n) for n in range(2)])
        crowd.wait_inside(2)
        crowd.let_go(0)
        crowd.wait_inside(1)
        os.write(stop.wakeup_fd, bytes([signal.SIGQUIT]))
        wait_until(lambda: overseer.forced == [False, True], what="the second word")
        crowd.let_go(1)


# Hooks


HOOKED = """
import os, sys, threading
from domain_events import HookFailed, Receiver, before_fork, child_started, child_stopping
url, name, key, fails = sys.argv[1:]
@before_fork
def forking():
    print("before fork", flush=True)
@child_started
def open_client():
    print("started", threading.current_thread() is threading.main_thread(), flush=True)
@child_started
def warm_up():
    if fails:
        raise ValueError("cold")
    print("warm", flush=True)
child_stopping(lambda: print("stopping", flush=True))
seen = []
receiver = Receiver(url)
@receiver.handles(name, [key], threads=2)
def handle(event):
    os.write(1, b"handled %d\\n" % event.data)  # in one piece: there are two threads
    seen.append(event.data)
    if len(seen) == 2:
        receiver.stop_consuming()
try:
    receiver.start_consuming(timeout=60)
except HookFailed as error:
    print(error)
"""


def test_hooks_are_called_before_and_after_a_process_consumes(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    crowded(broker, name, key, "threads", 1)
    for data in (1, 2):
        Sender(broker.url).send(key, data)
    process = processes.start([sys.executable, "-c", HOOKED, broker.url, name, key, ""])
    assert process.wait() == 0
    first, second, *handled, last = process.output().splitlines()
    assert (first, second, last) == ("started True", "warm", "stopping")
    assert sorted(handled) == ["handled 1", "handled 2"]


def test_when_a_hook_fails_the_process_does_not_consume_and_says_which_it_was(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name = queues.forget_after(unique + "r")
    process = processes.start([sys.executable, "-c", HOOKED, broker.url, name, unique + "key", "fails"])
    assert process.wait() == 0
    assert process.output() == "started True\nthe child_started hook __main__.warm_up failed: ValueError: cold\n"
    assert queues.count(name) is None
