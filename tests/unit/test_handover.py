"""The queue between the I/O thread and the handling one: each item is had once, in order, and nobody sleeps on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from domain_events.transport.handover import HandOver
from tests.waiting import wait_until


def test_items_come_in_their_order() -> None:
    handover: HandOver[int] = HandOver()
    assert not handover
    for n in range(3):
        handover.put(n)
    assert handover
    assert [handover.take() for _ in range(3)] == [0, 1, 2]
    assert not handover


def test_what_is_taken_back_is_not_taken() -> None:
    handover: HandOver[int] = HandOver()
    for n in range(3):
        handover.put(n)
    assert handover.take() == 0
    assert handover.take_back() == [1, 2]
    assert handover.take_back() == []
    handover.put(3)
    assert handover.take() == 3


def test_a_waiting_reader_is_woken_up() -> None:
    handover: HandOver[int] = HandOver()
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.append(handover.take()))
    reader.start()
    handover.put(7)
    reader.join(10)
    assert taken == [7]


def test_a_false_item_is_an_item() -> None:
    handover: HandOver[int | None] = HandOver()
    handover.put(None)
    handover.put(0)
    assert handover
    assert handover.take() is None
    assert handover.take() == 0


def test_each_item_is_had_by_exactly_one_side_and_no_reader_sleeps_on() -> None:
    handover: HandOver[int] = HandOver()
    count = 20_000
    taken: list[int] = []
    back: list[int] = []

    def read() -> None:
        while (item := handover.take()) >= 0:
            taken.append(item)

    def write() -> None:
        rng = random.Random(1)
        for n in range(count):
            handover.put(n)
            if rng.random() < 0.01:
                back.extend(handover.take_back())
            if rng.random() < 0.001:
                time.sleep(0.0005)  # lets the reader run into the empty queue
        handover.put(-1)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=each, daemon=True) for each in (read, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"asleep after {len(taken)} taken and {len(back)} taken back"
    finally:
        sys.setswitchinterval(switch)
    assert sorted(taken + back) == list(range(count))
    assert taken == sorted(taken)
    assert back == sorted(back)


def test_a_reader_that_waits_is_woken_by_what_is_put_after_a_take_back() -> None:
    handover: HandOver[int] = HandOver()
    taken: list[int] = []

    def read() -> None:
        taken.extend((handover.take(), handover.take()))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for n in (1, 2):
        handover.put(n)
        for item in handover.take_back():
            handover.put(item)
    wait_until(lambda: taken == [1, 2], 10, "both items")


WAITING = """
import os, signal, sys
from domain_events.transport.handover import HandOver
def on_signal(number, frame):
    os.write(1, b"handled" + os.linesep.encode())  # the signal may come in the middle of the print() below
    sys.exit(5)
signal.signal(signal.SIGTERM, on_signal)
print("waiting", flush=True)
HandOver().take()
"""


def test_pythons_signal_handlers_run_while_the_reader_waits() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "handled\n"
            assert process.wait(20) == 5
        finally:
            process.kill()
