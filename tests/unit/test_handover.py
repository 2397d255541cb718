"""The queues between the I/O thread and those that handle: each item is had once, in order, and nobody sleeps on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from domain_events.transport.handover import HandOver, SharedHandOver
from tests.waiting import wait_until


@pytest.fixture(params=[HandOver, SharedHandOver])
def handover(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_items_come_in_their_order(handover: HandOver[int]) -> None:
    assert not handover
    for n in range(3):
        handover.put(n)
    assert handover
    assert [handover.take() for _ in range(3)] == [0, 1, 2]
    assert not handover


def test_what_is_taken_back_is_not_taken(handover: HandOver[int]) -> None:
    for n in range(3):
        handover.put(n)
    assert handover.take() == 0
    assert handover.take_back() == [1, 2]
    assert handover.take_back() == []
    handover.put(3)
    assert handover.take() == 3


def test_a_waiting_reader_is_woken_up(handover: HandOver[int]) -> None:
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.append(handover.take()))
    reader.start()
    handover.put(7)
    reader.join(60)
    assert taken == [7]


def test_a_false_item_is_an_item(handover: HandOver[int]) -> None:
    handover.put(0)
    assert handover
    assert handover.take() == 0


def test_the_end_comes_after_what_is_there_and_stays(handover: HandOver[int]) -> None:
    handover.put(1)
    handover.end()
    handover.end()
    assert [handover.take() for _ in range(3)] == [1, None, None]
    assert handover.take_back() == []
    assert handover.take() is None


def test_the_end_wakes_up_a_reader(handover: HandOver[int]) -> None:
    taken: list[int | None] = []
    reader = threading.Thread(target=lambda: taken.append(handover.take()))
    reader.start()
    handover.end()
    reader.join(60)
    assert taken == [None]


def test_each_item_is_had_by_exactly_one_side_and_no_reader_sleeps_on() -> None:
    handover: HandOver[int] = HandOver()
    count = 20_000
    taken: list[int] = []
    back: list[int] = []

    def read() -> None:
        while (item := handover.take()) is not None:
            taken.append(item)

    def write() -> None:
        rng = random.Random(1)
        for n in range(count):
            handover.put(n)
            if rng.random() < 0.01:
                back.extend(handover.take_back())
            if rng.random() < 0.001:
                time.sleep(0.0005)  # lets the reader run into the empty queue
        handover.end()

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
    wait_until(lambda: taken == [1, 2], what="both items")


def test_many_readers_share_the_items_and_all_of_them_end() -> None:
    handover: SharedHandOver[int] = SharedHandOver()
    count = 5_000
    taken: list[list[int]] = [[] for _ in range(8)]
    back: list[int] = []

    def read(mine: list[int]) -> None:
        while (item := handover.take()) is not None:
            mine.append(item)

    readers = [threading.Thread(target=read, args=(mine,), daemon=True) for mine in taken]
    for reader in readers:
        reader.start()
    rng = random.Random(1)
    for n in range(count):
        handover.put(n)
        if rng.random() < 0.01:
            back.extend(handover.take_back())
        if rng.random() < 0.001:
            time.sleep(0.0005)
    handover.end()
    back.extend(handover.take_back())
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive()
    assert sorted([*back, *(item for mine in taken for item in mine)]) == list(range(count))
    assert all(mine == sorted(mine) for mine in taken)


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
            assert process.wait(60) == 5
        finally:
            process.kill()
