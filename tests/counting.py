"""What events cost, counted instead of timed: function calls, system calls, what is left in memory.

Run as a process of its own, `python -m tests.counting SCENARIO URL ...`: nothing else of the tests is counted. What it
prints is JSON, one object a line.
"""

from __future__ import annotations

import collections
import gc
import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from domain_events import DomainEvent, Receiver, Retry, Sender

MARK = "mark"
"""The data of an event that divides what is counted from what came before."""

_POLLS = {"poll", "select", "control"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """All threads together."""

    calls: float
    """Of functions in Python; a generator that goes on counts as well."""
    sends: float
    """Writes to TCP sockets."""
    receives: float
    """Reads from them, those in vain included."""
    wakings: float
    """Writes to pipes and the like: one thread wakes another."""
    turns: float
    """Of an I/O loop: how often it waits for something to happen."""
    garbage: float
    """Objects in cycles, which only the garbage collector finds."""
    kept: float
    """Blocks of memory more than before."""

    def __sub__(self, earlier: Costs) -> Costs:
        return Costs(**{name: value - getattr(earlier, name) for name, value in asdict(self).items()})

    def __truediv__(self, n: int) -> Costs:
        return Costs(**{name: value / n for name, value in asdict(self).items()})


class Counter:
    """Counts in every thread that starts after it, and in this one. The same from Python 3.11 to 3.14."""

    def __init__(self) -> None:
        self._hooks: list[_Hook] = []
        threading.setprofile(self._begin)
        sys.setprofile(_Hook(self._hooks))

    def read(self) -> Costs:
        gc.collect()
        counted = collections.Counter[str]()
        for hook in self._hooks:
            counted.update(hook.counted)
        return Costs(
            calls=sum(hook.calls for hook in self._hooks),
            sends=counted["send"],
            receives=counted["recv"],
            wakings=counted["wake"],
            turns=counted["turn"],
            garbage=sum(generation["collected"] for generation in gc.get_stats()),
            kept=sys.getallocatedblocks(),
        )

    def _begin(self, frame: FrameType, event: str, arg: Any) -> None:
        # A hook for each thread: so none has to wait for another, and no count is lost.
        sys.setprofile(_Hook(self._hooks))


class _Hook:
    def __init__(self, hooks: list[_Hook]) -> None:
        self.calls = 0
        self.counted = collections.Counter[str]()
        hooks.append(self)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self.calls += 1
        elif event == "c_call" and (kind := _kind(arg)):
            self.counted[kind] += 1


def _kind(function: Any) -> str:
    """What a function in C does for a living; empty: no system call that counts here."""
    name: str = function.__name__
    owner = getattr(function, "__self__", None)
    if isinstance(owner, socket.socket):
        if owner.family == socket.AF_UNIX:
            return "wake" if name.startswith("send") else ""
        return name[:4] if name.startswith(("send", "recv")) else ""
    if function.__module__ == "posix":
        return "wake" if name == "write" else ""
    return "turn" if name in _POLLS and type(owner).__name__ in ("epoll", "poll", "module") else ""


def consume(url: str, name: str) -> None:
    """What waits in the queue `name`, from its first mark to its second."""
    counter = Counter()
    readings: list[Costs] = []
    handled = 0

    def handle(event: DomainEvent) -> None:
        nonlocal handled
        if event.data == MARK:
            readings.append(counter.read())
            if len(readings) == 2:
                receiver.stop_consuming()
        elif len(readings) == 1:
            handled += 1

    receiver = Receiver(url)
    receiver.register(handle, name, [name])
    receiver.start_consuming(60)
    _say(readings[1] - readings[0], handled)


def retry(url: str, name: str, delay: str, pause: str, n: str) -> None:
    """`n` events, each retried once. One is retried before; `pause` seconds later this says "warm": send them now."""
    counter = Counter()
    readings: list[Costs] = []
    handled = collections.Counter[int]()

    def handle(event: DomainEvent) -> None:
        handled[event.retries] += 1
        match event.retries, handled[event.retries]:
            case 0, 2:
                readings.append(counter.read())
            case 1, 1:
                time.sleep(float(pause))
                print(json.dumps("warm"), flush=True)
            case 1, last if last == 1 + int(n):
                readings.append(counter.read())
                receiver.stop_consuming()
        if event.retries == 0:
            raise Retry(float(delay))

    receiver = Receiver(url)
    receiver.register(handle, name, [name], max_retries=1)
    receiver.start_consuming(60)
    _say(readings[1] - readings[0], int(n))


def send(url: str, key: str, n: str) -> None:
    """`n` events, one after the other."""
    counter = Counter()
    with Sender(url) as sender:
        for number in range(20):
            sender.send(key, number)
        before = counter.read()
        for number in range(int(n)):
            sender.send(key, number)
        _say(counter.read() - before, int(n))


def send_many(url: str, key: str, n: str) -> None:
    """`n` events at once."""
    counter = Counter()
    events = [DomainEvent(key, number) for number in range(int(n))]
    with Sender(url) as sender:
        sender.send_many(events[:200])
        time.sleep(0.2)  # its thread has told us, and may have a turn to do
        before = counter.read()
        sender.send_many(events)
        _say(counter.read() - before, int(n))


def _say(costs: Costs, n: int) -> None:
    print(json.dumps(asdict(costs / n)), flush=True)


if __name__ == "__main__":
    _, scenario, *arguments = sys.argv
    {"consume": consume, "retry": retry, "send": send, "send_many": send_many}[scenario](*arguments)
