"""Senders in threads, coroutines, signal handlers, finalizers and forks; closed, crashed, and cut off in silence."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pika import BasicProperties

from domain_events import (
    ConnectionFailed,
    DomainEvent,
    InvalidName,
    PartlySent,
    Sender,
    SendError,
    SendTimeout,
    Unroutable,
    UnsendableData,
)
from domain_events.sending import _senders
from domain_events.settings import parse_brokers
from domain_events.transport.line import Line, Message, Receipt
from domain_events.transport.outgoing import Outgoing
from domain_events.transport.sender import ConfirmedSender, _Batch
from tests.brokers import Broker, Queues
from tests.relay import Relay, relay
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def key(queues: Queues, unique: str) -> tuple[str, str]:
    """A routing key, and a queue that gets what is sent under it."""
    return unique + "key", queues.declare_watch(unique + "key")


@pytest.fixture
def wire(broker: Broker) -> Iterator[Relay]:
    with relay(broker.url) as made:
        yield made


@pytest.fixture
def alive(broker: Broker) -> Iterator[Relay]:
    """Another wire."""
    with relay(broker.url) as made:
        yield made


def bodies(queues: Queues, queue: str) -> list[DomainEvent]:
    return [DomainEvent.from_json(body) for _, _, body in queues.drain(queue)]


class Call:
    """A call in a thread of its own."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self, within: float = 60.0) -> Any:
        self._thread.join(within)
        assert self.is_over, "it hangs"
        if self.error is not None:
            raise self.error
        return self.value


def line_to(wire: Relay) -> Line:
    """The one that the sender to this broker uses now."""
    # Compared whole: other tests leave senders to broker files behind, which are gone or hold rubbish.
    [sender] = [sender for (brokers, _), sender in _senders.items() if brokers == parse_brokers(wire.url, "test")]
    return sender._last


def crash(line: Line) -> None:
    def boom() -> None:
        raise ZeroDivisionError("in the I/O thread")

    assert line._running is not None
    line._running[0].call(boom)


# Closing


def test_closing_lets_others_end_what_they_are_sending_and_begin_anew(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    wire.links[0].hold(down=True)
    in_flight = Call(lambda: sender.send(key[0], "in flight", timeout=20))
    queues.wait_count(key[1], 2)
    closing = Call(sender.close)
    wait_until(lambda: line_to(wire).is_over, what="the beginning of the end")
    sender.send(key[0], "meanwhile")
    wire.links[0].let_go()
    in_flight.result()
    closing.result()
    wait_until(lambda: wire.links[0].is_over, what="the goodbye of the first connection")
    assert [event.data for event in bodies(queues, key[1])] == ["first", "in flight", "meanwhile"]
    assert len(wire.links) == 2  # nothing was sent again
    sender.close()


def test_closing_waits_for_others_no_longer_than_promised_and_cuts_none_of_them_off(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    wire.links[0].hold(down=True)
    in_flight = Call(lambda: sender.send(key[0], "in flight", timeout=20))
    queues.wait_count(key[1], 2)
    began = time.monotonic()
    Call(sender.close).result()
    assert not in_flight.is_over
    assert time.monotonic() - began > 1.5  # it did wait
    wire.links[0].let_go()
    in_flight.result()


# A crash of our own


def test_a_crash_of_the_io_thread_is_told_at_once_and_truly_and_the_next_event_is_sent(
    wire: Relay, queues: Queues, key: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    wire.links[0].hold(down=True)
    sent = Call(lambda: sender.send(key[0], "sent", timeout=60))
    queues.wait_count(key[1], 2)
    crash(line_to(wire))
    with pytest.raises(SendError, match="I/O thread failed: ZeroDivisionError; the event may have arrived"):
        sent.result(30)
    assert "ZeroDivisionError: in the I/O thread" in caplog.text
    last = sender.send(key[0], "last")
    assert bodies(queues, key[1])[-1] == last
    sender.close()


def test_what_a_signal_handler_raises_in_the_middle_of_sending_costs_the_connection_and_no_other_event(
    wire: Relay, queues: Queues, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    raised_in: list[int] = []

    def flush(_outgoing: Outgoing) -> None:
        monkeypatch.undo()
        raised_in.append(threading.get_ident())
        raise KeyboardInterrupt

    monkeypatch.setattr(Outgoing, "flush", flush)
    with pytest.raises(KeyboardInterrupt):
        sender.send(key[0], "interrupted")
    assert raised_in == [threading.get_ident()], "a lone sender writes what it sends itself"
    sender.send(key[0], "last")
    assert len(wire.links) == 2
    assert [event.data for event in bodies(queues, key[1])] == ["first", "last"]
    sender.close()


def test_wherever_submitting_is_interrupted_nothing_is_left_that_nobody_waits_for(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    """By what a signal handler raises, which Python calls when functions begin and when those in C have ended: each of
    these in turn, until one comes through."""
    codes = {
        function.__code__
        for function in (_Batch.submit, ConfirmedSender._submit, Line.submit, Line._publish_here, Line._call)
    }
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    for n in count():
        line, left = line_to(wire), [n]

        def interrupt(frame: FrameType, event: str, _: object, left: list[int] = left) -> None:
            place = frame.f_back if event == "call" else frame
            if event in ("call", "c_return") and place is not None and place.f_code in codes:
                left[0] -= 1
                if left[0] < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            sender.send(key[0], n)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        wait_until(lambda line=line: not line._receipts, what=f"no receipt after the interruption {n}")  # type: ignore[misc]
    assert n > 10
    data = [event.data for event in bodies(queues, key[1])]
    assert data[-1] == n
    assert len(data) == len(set(data))
    sender.close()


def test_of_many_events_those_are_named_that_no_line_could_take_any_more(
    wire: Relay, queues: Queues, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ConfirmedSender._submit
    slices: list[int] = []

    def submit_once(sender: ConfirmedSender, receipt: Receipt) -> None:
        slices.append(len(receipt.publications))
        if len(slices) > 1:
            raise ConnectionFailed("not sent: cannot start the thread that sends: no more threads")
        submit(sender, receipt)

    monkeypatch.setattr(ConfirmedSender, "_submit", submit_once)
    with Sender(wire.url) as sender, pytest.raises(PartlySent) as caught:
        sender.send_many((key[0], n) for n in range(2500))
    assert slices == [1000, 1000, 500]
    assert [event.data for event in caught.value.unconfirmed] == [*range(1000, 2500)]
    assert {str(cause) for cause in caught.value.causes} == {
        "not sent: cannot start the thread that sends: no more threads"
    }
    assert [event.data for event in bodies(queues, key[1])] == [*range(1000)]


def test_a_crash_before_anything_was_sent_says_so(wire: Relay, queues: Queues, key: tuple[str, str]) -> None:
    wire.deaf = True
    sender = Sender(wire.url)
    waiting = Call(lambda: sender.send(key[0], "waiting", timeout=60))
    wait_until(lambda: wire.links, what="a connection")
    crash(line_to(wire))
    with pytest.raises(ConnectionFailed, match="not sent: the sender's I/O thread failed"):
        waiting.result(30)
    wire.deaf = False
    sender.send(key[0], "last")
    assert [event.data for event in bodies(queues, key[1])] == ["last"]
    sender.close()


DESCRIPTORS = """
import os, resource, sys
from domain_events import ConnectionFailed, Sender, SendTimeout
url, key = sys.argv[1:]
sender = Sender(url)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
failures = 0
for spare in range(-1, 6):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + spare, limits[1]))
    try:
        sender.send(key, "perhaps", timeout=0.5)
    except ConnectionFailed:
        failures += 1
    except SendTimeout:
        pass  # it had enough of them, and too little time
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    sender.send(key, spare)
    sender.close()
assert failures
"""


def test_a_process_without_descriptors_is_told_so_and_sends_when_it_has_some_again(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    done = run(DESCRIPTORS, broker.url, key[0])
    assert done.returncode == 0, done.stderr
    assert "Exception in thread" not in done.stderr
    assert [event.data for event in bodies(queues, key[1]) if event.data != "perhaps"] == list(range(-1, 6))


# A connection that is dead and does not say so


def test_a_line_that_dies_without_a_word_costs_seconds_and_no_event(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url + "?heartbeat=0")
    sender.send(key[0], "first")
    wire.links[0].hold(up=True, down=True)
    sent = sender.send(key[0], "second")  # within the default timeout
    assert len(wire.links) == 2
    assert bodies(queues, key[1])[-1] == sent
    sender.close()


def test_after_a_rest_nothing_is_given_to_a_connection_before_it_has_proved_that_it_lives(
    wire: Relay, alive: Relay, queues: Queues, key: tuple[str, str], unique: str
) -> None:
    sender = Sender(wire.url + "?heartbeat=0")
    sender.send(key[0], "first")
    other = Sender(alive.url + "?heartbeat=0")
    other.send(unique + "other", 1)
    wire.links[0].hold(up=True)
    time.sleep(5.2)  # the rest: nobody sends, and no heartbeat either
    sender.send(key[0], "second")
    assert len(wire.links) == 2
    wire.links[0].let_go()  # a late delivery of what was under way: a question, and no event
    sender.send(key[0], "third")
    assert [event.data for event in bodies(queues, key[1])] == ["first", "second", "third"]
    sender.close()
    other.send(unique + "other", 2)
    assert len(alive.links) == 1  # one that lives answers, and is kept
    other.close()


def test_a_dead_connection_is_usually_known_from_its_heartbeats(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url + "?heartbeat=1")
    sender.send(key[0], "first")
    wire.links[0].hold(up=True, down=True)
    wait_until(lambda: established(wire) == 0, what="a connection that is given up")
    sender.send(key[0], "second", timeout=2.0)  # less than any proof would take
    assert [event.data for event in bodies(queues, key[1])] == ["first", "second"]
    sender.close()


def established(wire: Relay) -> int:
    """How many clients of this process are connected to the relay (proc(5), /proc/net/tcp)."""
    port = int(wire.url.rpartition(":")[2].partition("/")[0])
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


# Much at a time


def test_no_more_than_a_few_bytes_are_under_way_however_many_wait(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    queues.drain(key[1])
    wire.links[0].hold(down=True)
    megabyte = "x" * 1024 * 1024
    sending = Call(lambda: sender.send_many([(key[0], megabyte) for _ in range(40)], timeout=60))
    queues.wait_count(key[1], 15)  # of 16 MiB; each of them has a few bytes more
    wire.links[0].let_go()
    sent = sending.result(60)
    assert {event.uuid_string for event in bodies(queues, key[1])} == {event.uuid_string for event in sent}
    sender.close()


def test_fifty_threads_whose_connection_is_cut_all_the_time_know_what_arrived(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url)
    sent: list[str] = []
    confirmed: list[str] = []
    unknown: list[str] = []
    failed: list[str] = []
    done = threading.Event()

    def work(thread: int) -> None:
        for n in count():
            if n >= 20 and len(wire.links) > 3:
                return
            event = DomainEvent(key[0], [thread, n])
            sent.append(event.uuid_string)
            try:
                sender.send_many([event], timeout=10)
                confirmed.append(event.uuid_string)
            except PartlySent as error:
                where = failed if isinstance(error.causes[0], ConnectionFailed) else unknown
                where.append(event.uuid_string)

    def saw() -> None:
        pause = 0.1
        while not done.wait(pause):
            wire.cut()
            pause *= 1.1  # on a slow machine, too, some time is long enough for a login

    sawing = Call(saw)
    calls = [Call(lambda n=n: work(n)) for n in range(50)]
    for call in calls:
        call.result(60)
    done.set()
    sawing.result()
    sender.close()
    assert sorted(confirmed + unknown + failed) == sorted(sent)
    got = {event.uuid_string for event in bodies(queues, key[1])}
    assert set(confirmed) <= got
    assert got.isdisjoint(failed)


# Coroutines


def test_coroutines_send_without_threads_of_their_own_and_the_loop_goes_on(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url, app_id="shop")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    async def main() -> list[DomainEvent]:
        first = await sender.send_async(key[0], {"n": 0}, 7, "my-id", 1.5)
        assert first == DomainEvent(key[0], {"n": 0}, "7", "my-id", 1.5)
        threads = threading.active_count()
        wire.links[0].hold(down=True)
        ticking = asyncio.create_task(tick())
        sending = [asyncio.create_task(sender.send_async(key[0], n)) for n in range(200)]
        while ticks < 10:
            await asyncio.sleep(0.01)
        assert not any(task.done() for task in sending)
        assert threading.active_count() <= threads
        wire.links[0].let_go()
        sent = await asyncio.gather(*sending)
        ticking.cancel()
        return [first, *sent, *await sender.send_many_async([(key[0], "a"), DomainEvent(key[0], "b")])]

    sent = asyncio.run(main())
    assert len(wire.links) == 1
    assert bodies(queues, key[1]) == sent
    assert [event.data for event in sent[-2:]] == ["a", "b"]
    sender.close()


def test_coroutines_get_the_same_errors(wire: Relay, key: tuple[str, str], unique: str) -> None:
    async def main() -> None:
        sender = Sender(wire.url)
        with pytest.raises(InvalidName):
            await sender.send_async("a.*", 1)
        with pytest.raises(UnsendableData):
            await sender.send_async("a.b", object())
        with pytest.raises(ValueError, match="timeout"):
            await sender.send_async("a.b", 1, timeout=0)
        with pytest.raises(Unroutable):
            await sender.send_async(unique + "nobody", 1, mandatory=True)
        with pytest.raises(PartlySent, match="1 of 2"):
            await sender.send_many_async([(key[0], 1), (unique + "nobody", 2)], mandatory=True)
        wire.links[0].hold(down=True)
        with pytest.raises(SendTimeout, match="may have arrived"):
            await sender.send_async(key[0], 1, timeout=0.5)
        await sender.send_async(key[0], 1)  # over another connection
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nowhere = f"amqp://guest:guest@127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="not sent"):
            await Sender(nowhere).send_async(key[0], 1, timeout=0.5)
        assert await sender.send_many_async([]) == []
        assert (await Sender(None).send_async("a.b", 1)).data == 1
        await asyncio.to_thread(sender.close)

    asyncio.run(main())


def test_what_a_cancelled_coroutine_had_not_sent_is_not_sent_later(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    async def main() -> None:
        sender = Sender(wire.url)
        wire.deaf = True
        cancelled = asyncio.create_task(sender.send_async(key[0], "cancelled", timeout=30))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(cancelled), 0.3)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        wire.deaf = False
        wire.cut()
        await sender.send_async(key[0], "sent")
        await asyncio.to_thread(sender.close)

    asyncio.run(main())
    assert [event.data for event in bodies(queues, key[1])] == ["sent"]


def test_several_event_loops_share_the_connection(wire: Relay, queues: Queues, key: tuple[str, str]) -> None:
    sender = Sender(wire.url)

    async def main(loop: int) -> None:
        await asyncio.gather(*(sender.send_async(key[0], [loop, n]) for n in range(50)))

    calls = [Call(lambda n=n: asyncio.run(main(n))) for n in range(4)]
    for call in calls:
        call.result()
    assert sorted(event.data for event in bodies(queues, key[1])) == [[a, b] for a in range(4) for b in range(50)]
    assert len(wire.links) == 1
    sender.close()


def test_an_event_loop_that_is_closed_meanwhile_does_no_harm(
    wire: Relay, queues: Queues, key: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], "first")
    wire.links[0].hold(down=True)
    loop = asyncio.new_event_loop()
    task = loop.create_task(sender.send_async(key[0], "left", timeout=30))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0.1))
    queues.wait_count(key[1], 2)
    loop.close()
    wire.links[0].let_go()
    sender.send(key[0], "last")
    assert [event.data for event in bodies(queues, key[1])] == ["first", "left", "last"]
    assert caplog.text == ""
    task.get_coro().close()
    sender.close()


# Scripts: what can only be seen in a process of its own


def run(script: str, *args: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on os.fork() warns when there are threads; that ours survive it is what is tested.
        [sys.executable, "-W", "error::ResourceWarning", "-W", "ignore:::__main__", "-c", script, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=within,
    )


def output(script: str, *args: str, within: float = 60.0) -> str:
    """What a script has printed that ended well and without complaint."""
    done = run(script, *args, within=within)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SIGNALS = """
import signal, sys, time
from domain_events import Sender
url, key = sys.argv[1:]
sender = Sender(url)
handled = 0
inside = False

def handle(number, frame):
    global handled, inside
    if not inside:
        inside = True
        sender.send(key, f"signal {handled}")
        handled += 1
        inside = False

sender.send(key, "first")
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
sent = 0
while handled < 150 or sent < 150:
    sender.send(key, f"main {sent}")
    sent += 1
signal.setitimer(signal.ITIMER_REAL, 0)
sender.close()
print(sent, handled)
"""


def test_a_signal_handler_may_send_whatever_it_interrupts(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    printed = output(SIGNALS, broker.url, key[0])
    sent, handled = map(int, printed.split())
    expected = ["first"] + [f"main {n}" for n in range(sent)] + [f"signal {n}" for n in range(handled)]
    assert sorted(event.data for event in bodies(queues, key[1])) == sorted(expected)


RAISING = """
import logging, random, signal, sys
from domain_events import Sender, SendError
url, key = sys.argv[1:]
logging.disable(logging.CRITICAL)
sender = Sender(url)
raised = sent = 0
is_armed = False

class Interrupt(Exception):
    pass

def handle(number, frame):
    if is_armed:
        raise Interrupt

signal.signal(signal.SIGALRM, handle)
while raised < 1000:
    sender.send(key, sent, timeout=10)
    sent += 1
    try:
        is_armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 1.5e-4))
        try:
            sender.send(key, "interrupted", timeout=10)
        finally:
            is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        raised += 1
    except SendError:
        pass
print(sent)
"""


def test_whatever_a_signal_handler_raises_wherever_the_next_event_is_sent(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    printed = output(RAISING, broker.url, key[0])
    got = [event.data for event in bodies(queues, key[1])]
    assert [each for each in got if each != "interrupted"] == [*range(int(printed))]


def test_no_event_overtakes_one_that_waits_for_the_io_thread(wire: Relay, queues: Queues, key: tuple[str, str]) -> None:
    sender = Sender(wire.url)
    sender.send(key[0], -1)
    line = line_to(wire)
    assert line._running is not None
    turn = line._running[0].turn
    ended = threading.Semaphore(0)

    def receipt(n: int) -> Receipt:
        body = DomainEvent(key[0], n).encode()
        return Receipt("domain-events", [Message(key[0], BasicProperties(message_id=str(n)), body)], ended.release)

    for n in range(0, 200, 2):
        first, second = receipt(n), receipt(n + 1)
        with turn:
            line.submit(first)
        line.submit(second)  # the turn is free, and the first one not written yet
        for _ in range(2):
            assert ended.acquire(timeout=60)
    assert [event.data for event in bodies(queues, key[1])] == [*range(-1, 200)]
    sender.close()


def test_who_interrupts_the_start_of_the_io_thread_may_send_too(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    sender = Sender(wire.url)

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_qualname == "IOThread.start":
            sys.setprofile(None)
            sender.send(key[0], "inner")

    sys.setprofile(interrupt)
    try:
        sender.send(key[0], "outer")
    finally:
        sys.setprofile(None)
    assert [event.data for event in bodies(queues, key[1])] == ["inner", "outer"]
    wait_until(lambda: any(link.is_over for link in wire.links), what="the goodbye of the line that helped out")
    sender.close()


FINALIZERS = """
import gc, sys, threading
from domain_events import Sender
from domain_events.sending import _senders
url, key = sys.argv[1:]
sender = Sender(url)
where = []

class Closing:
    def __init__(self):
        self.me = self  # only the collector finds it

    def __del__(self):
        where.append(threading.current_thread().name)
        sender.send(key, len(where))

gc.disable()
sender.send(key, 0)
[shared] = _senders.values()
collected = threading.Event()
Closing()
io, _ = shared._line()._running
io.call(lambda: (gc.collect(), collected.set()))
assert collected.wait(30)
assert where == ["de-sender"], where
sender.send(key, "between")
gc.set_threshold(20, 2, 2)  # from now on it comes anywhere
gc.enable()
for n in range(100):
    Closing()
    sender.send(key, "more")
while len(where) < 101:  # one that runs in the I/O thread may not be over
    gc.collect()
print(len(where))
"""


def test_a_finalizer_may_send_wherever_the_garbage_collector_runs_it(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    printed = output(FINALIZERS, broker.url, key[0])
    data = [event.data for event in bodies(queues, key[1])]
    assert sorted(n for n in data if isinstance(n, int)) == list(range(int(printed) + 1)) == list(range(102))
    assert data.count("more") == 100


FORK_IN_THE_MIDDLE = """
import os, signal, sys
from domain_events import Sender, SendError
url, key = sys.argv[1:]
sender = Sender(url)
parent = os.getpid()
children = []

def fork(number, frame):
    children.append(os.fork())

signal.signal(signal.SIGUSR1, fork)
sender.send(key, "first")
print("ready", flush=True)
sys.stdin.readline()  # the connection is held up now
try:
    sender.send(key, "forked", timeout=30)
except SendError as error:
    assert os.getpid() != parent, error
    assert "forked" in str(error)
    sender.send(key, "child")
    os._exit(7)
assert os.getpid() == parent
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
"""


def test_a_process_that_is_forked_in_the_middle_of_sending_is_told_so_and_the_parent_goes_on(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore:::__main__", "-c", FORK_IN_THE_MIDDLE, wire.url, key[0]],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wire.links[0].hold(down=True)
        process.stdin.write("\n")
        process.stdin.flush()
        queues.wait_count(key[1], 2)  # it is in the middle of it
        process.send_signal(signal.SIGUSR1)
        queues.wait_count(key[1], 3)  # the child has sent its own
        wire.links[0].let_go()
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert {event.data for event in bodies(queues, key[1])} == {"first", "forked", "child"}


FORK_AND_LOOPS = """
import asyncio, os, sys
from domain_events import Sender
url, key = sys.argv[1:]
sender = Sender(url)
asyncio.run(sender.send_async(key, "parent 1"))
child = os.fork()
if not child:
    asyncio.run(sender.send_async(key, "child"))
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(sender.send_async(key, "parent 2"))
"""


def test_after_a_fork_both_processes_send_from_their_event_loops(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    output(FORK_AND_LOOPS, wire.url, key[0])
    assert [event.data for event in bodies(queues, key[1])] == ["parent 1", "child", "parent 2"]
    assert len(wire.links) == 2


# The end of a process

DAEMON = """
import sys, threading
from domain_events import Sender
from domain_events.sending import _senders
url, key = sys.argv[1:]
sender = Sender(url)
sender.send(key, "first")
daemon = threading.Thread(target=sender.send, args=(key, "daemon"), daemon=True)
daemon.start()
[shared] = _senders.values()
while not shared._line()._receipts and daemon.is_alive():
    pass  # it has not begun to send
"""


def test_what_a_daemon_thread_is_sending_when_the_program_ends_is_sent(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    wire.delay = 0.15
    done = run(DAEMON, wire.url, key[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [event.data for event in bodies(queues, key[1])] == ["first", "daemon"]


NEVER = """
import sys, threading
from domain_events import Sender
sender = Sender(sys.argv[1])
threading.Thread(target=sender.send, args=("a.b", 1), kwargs={"timeout": 600}, daemon=True).start()
threading.Event().wait(0.3)
"""


def test_a_daemon_thread_whose_event_nobody_takes_does_not_hold_up_the_end(wire: Relay) -> None:
    wire.deaf = True
    done = run(NEVER, wire.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


OTHERS = """
import atexit, sys, threading
atexit.register(lambda: sender.send(key, "registered before the import"))
from domain_events import Sender, SendError
atexit.register(lambda: sender.send(key, "registered after the import"))
url, key = sys.argv[1:]
sender = Sender(url)

def work():
    for n in range(50):
        sender.send(key, n)

class AtTheVeryEnd:
    def __init__(self, error=SendError):
        self.sender, self.error = sender, error

    def __del__(self):
        try:
            self.sender.send("a.b", 1)
        except self.error as error:
            print(error, flush=True)

threading.Thread(target=work).start()
kept = AtTheVeryEnd()
sys.modules["kept"] = kept
del kept
"""


def test_threads_end_what_they_send_exit_functions_may_send_and_the_very_end_does_not_hang(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    printed = output(OTHERS, broker.url, key[0])
    assert printed in ("", "not sent: the interpreter is ending\n")
    got = [event.data for event in bodies(queues, key[1])]
    assert got == [*range(50), "registered after the import", "registered before the import"]
