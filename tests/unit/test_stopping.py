"""How the wish to stop reaches the I/O thread."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain_events.stopping import Stop


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()


@pytest.fixture
def signals_to(stop: Stop) -> Iterator[None]:
    """Signals are written to `stop`, as in a child; the Python handler does nothing."""
    handlers = {
        which: signal.signal(which, lambda *_: None) for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    before = signal.set_wakeup_fd(stop.wakeup_fd, warn_on_full_buffer=False)
    yield
    signal.set_wakeup_fd(before)
    for which, handler in handlers.items():
        signal.signal(which, handler)


def readable(stop: Stop, deadline: float = 60.0) -> bool:
    return bool(select.select([stop], [], [], deadline)[0])


def test_at_first_nobody_asked(stop: Stop):
    assert not stop.requested
    assert not readable(stop, 0)
    assert stop.read_signals() == set()
    assert not stop.requested


def test_a_request_is_seen_at_once_and_wakes_the_reader(stop: Stop):
    stop.request()
    assert stop.requested
    assert readable(stop)
    assert stop.read_signals() == set()
    assert not readable(stop, 0)
    assert stop.requested


def test_a_request_from_another_thread_wakes_a_waiting_reader(stop: Stop):
    thread = threading.Timer(0.05, stop.request)
    thread.start()
    assert readable(stop)
    thread.join()
    assert stop.requested


def test_any_number_of_requests_is_one_request(stop: Stop):
    for _ in range(10_000):  # more than the socket holds
        stop.request()
    assert stop.requested
    assert readable(stop)
    assert stop.read_signals() == set()
    assert not readable(stop, 0)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("signals_to")
def test_a_signal_to_stop_wakes_the_reader_and_counts_as_a_request(stop: Stop, which: signal.Signals):
    os.kill(os.getpid(), which)
    assert readable(stop)
    assert stop.read_signals() == {which}
    assert stop.requested


@pytest.mark.usefixtures("signals_to")
def test_another_signal_is_told_and_is_no_request(stop: Stop):
    os.kill(os.getpid(), signal.SIGHUP)
    assert readable(stop)
    assert stop.read_signals() == {signal.SIGHUP}
    assert not stop.requested


@pytest.mark.usefixtures("signals_to")
def test_a_signal_arrives_even_when_the_socket_was_full_of_requests_read_since(stop: Stop):
    for _ in range(10_000):
        stop.request()
    stop.read_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert readable(stop)
    assert stop.read_signals() == {signal.SIGHUP}


def test_a_request_in_a_signal_handler_that_interrupts_a_request_returns(stop: Stop):
    # With a lock inside, the main thread would wait for itself. Interrupted as often as it goes for a while.
    before = signal.signal(signal.SIGALRM, lambda *_: stop.request())
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        for _ in range(20_000):
            stop.request()
            stop.read_signals()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stop.requested


def test_a_request_after_the_end_does_nothing():
    stop = Stop()
    stop.close()
    stop.request()
    assert stop.requested
    stop.close()


def test_closing_leaves_no_descriptor_behind():
    gc.collect()  # what earlier tests have left is none of ours
    before = set(os.listdir("/proc/self/fd"))
    stop = Stop()
    stop.request()
    stop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del stop
        gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


FORKING = """
import os, signal, sys
if sys.argv[1] == "first":
    import asyncio
from domain_events.stopping import Stop
import asyncio
stop = Stop()
signal.set_wakeup_fd(stop.wakeup_fd)
stop.handlers_before = {signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: stop.request())}
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.requested, bool(stop.read_signals()))
os.kill(os.getpid(), signal.SIGTERM)
print(stop.requested)
"""


@pytest.mark.parametrize("asyncio_is_imported", ["first", "later"])
def test_a_signal_to_what_was_forked_ends_it_and_is_no_request(asyncio_is_imported: str):
    # asyncio has a hook of its own for forks, which runs before ours or after it.
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", FORKING, asyncio_is_imported]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("-15 False False\nTrue\n", "")


def test_what_is_forked_while_no_signal_asks_for_a_stop_keeps_its_handlers(stop: Stop):
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        child = os.fork()
        if not child:
            os._exit(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
