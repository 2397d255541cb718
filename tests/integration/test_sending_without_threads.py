"""Sending where Python starts no thread any more, as 3.12 from the end of the main thread on: the caller does the work.

The scripts refuse threads in the words of 3.12, so that every version of Python is tested; what the versions themselves
do at the end of a program is tested in test_sender_concurrency.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from domain_events import DomainEvent
from tests.brokers import Broker, Queues
from tests.processes import ROOT
from tests.relay import Relay, relay
from tests.waiting import wait_until

BEGINNING = """
import asyncio, signal, sys, threading
from domain_events import ConnectionFailed, PartlySent, Sender, SendError, Unroutable

url, key = sys.argv[1:]
sender = Sender(url)


def refuse(*_, **__):
    raise RuntimeError("can't create new thread at interpreter shutdown")


def start_no_threads():
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            setattr(threading, name, refuse)


"""


@pytest.fixture
def wire(broker: Broker) -> Iterator[Relay]:
    with relay(broker.url) as made:
        yield made


@pytest.fixture
def key(queues: Queues, unique: str) -> tuple[str, str]:
    """A routing key, and the queue of what is sent with it."""
    return unique + "key", queues.declare_watch(unique + "key")


def started(script: str, wire: Relay, key: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", BEGINNING + script, wire.url, key],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(script: str, wire: Relay, key: str) -> str:
    with started(script, wire, key) as process:
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return printed


def sent(queues: Queues, queue: str) -> list[object]:
    return [DomainEvent.from_json(body).data for _, _, body in queues.drain(queue)]


def test_all_ways_of_sending_work_and_leave_the_broker(wire: Relay, queues: Queues, key: tuple[str, str]) -> None:
    script = """
start_no_threads()
sender.send(key, 1)
sender.send_many([(key, 2), (key, 3)])
asyncio.run(sender.send_async(key, 4))
asyncio.run(sender.send_many_async((key, n) for n in range(5, 2005)))
"""
    assert output(script, wire, key[0]) == ""
    assert sent(queues, key[1]) == [*range(1, 2005)]
    wait_until(lambda: all(link.is_over for link in wire.links), what="all goodbyes")
    assert len(wire.links) == 4


def test_errors_are_those_that_they_are_with_threads_and_come_in_time(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    script = """
start_no_threads()
for call in (
    lambda: sender.send(key + ".nobody", 1, mandatory=True),
    lambda: sender.send_many([(key, "first"), (key + ".nobody", 1)], mandatory=True),
    lambda: Sender("amqp://guest:guest@127.0.0.1:1").send(key, 1, timeout=0.3),
    lambda: Sender("amqp://guest:guest@no-such-host.invalid").send(key, 1, timeout=0.3),
):
    try:
        call()
    except SendError as error:
        print(type(error).__name__)
sender.send(key, "last")
"""
    errors = ["Unroutable", "PartlySent", "ConnectionFailed", "ConnectionFailed"]
    assert output(script, wire, key[0]).split() == errors
    assert sent(queues, key[1]) == ["first", "last"]


def test_what_is_not_confirmed_in_time_ends_in_time(wire: Relay, queues: Queues, key: tuple[str, str]) -> None:
    script = """
start_no_threads()
try:
    sender.send(key, 1, timeout=0.5)
except ConnectionFailed as error:
    print(error)
"""
    wire.deaf = True
    assert output(script, wire, key[0]) == "not sent within 0.5 s: the broker does not answer\n"
    assert sent(queues, key[1]) == []


def test_what_a_signal_handler_raises_meanwhile_is_raised_and_nothing_is_sent_later(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    script = """
def interrupt(number, frame):
    raise KeyboardInterrupt

import logging
logging.getLogger("domain_events").setLevel(logging.CRITICAL)
signal.signal(signal.SIGALRM, interrupt)
start_no_threads()
try:
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    sender.send(key, "interrupted", timeout=300)
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.readline()
sender.send(key, "last")
"""
    wire.deaf = True
    with started(script, wire, key[0]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "interrupted\n"
        wire.deaf = False
        wire.cut()
        assert process.communicate("\n", timeout=60) == ("", "")
        assert process.returncode == 0
    assert sent(queues, key[1]) == ["last"]


def test_a_sender_that_has_its_thread_comes_back_by_itself_after_a_lost_connection(
    wire: Relay, queues: Queues, key: tuple[str, str]
) -> None:
    """pika asks for the address of a broker in a thread of its own."""
    script = """
sender.send(key, "first")
start_no_threads()
print("ready", flush=True)
sys.stdin.readline()
sender.send(key, "second")
sender.send(key, "third")
"""
    with started(script, wire, key[0]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wire.cut()
        assert process.communicate("\n", timeout=60) == ("", "")
        assert process.returncode == 0
    assert sent(queues, key[1]) == ["first", "second", "third"]
    assert len(wire.links) == 2


def test_without_the_words_of_3_12_a_thread_that_cannot_be_had_is_an_error(wire: Relay, key: tuple[str, str]) -> None:
    script = """
def refuse(*_, **__):
    raise RuntimeError("can't start new thread")

start_no_threads()
try:
    sender.send(key, 1)
except ConnectionFailed as error:
    print(error)
"""
    told = "not sent: cannot start the thread that sends: can't start new thread\n"
    assert output(script, wire, key[0]) == told
