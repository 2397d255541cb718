"""Receivers that a test makes up (TEST_RECEIVERS), and handlers that hang, die or leak: the event says how."""

import asyncio
import collections
import ctypes
import itertools
import json
import os
import signal
import time

from domain_events import DomainEvent, Receiver, child_started
from tests.growing import whole_objects

PREFIX = os.environ["TEST_PREFIX"]
LEDGER = os.environ["TEST_LEDGER"]

receiver = Receiver()
leaked: list[bytearray] = []


def note(name: str, event: DomainEvent, step: str) -> None:
    """One line, written at once: who dies in the next moment has written it."""
    line = {"receiver": name, "step": step, "n": event.data["n"], "pid": os.getpid(), "at": time.monotonic()}
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(line).encode() + b"\n")
    os.close(file)


def act(event: DomainEvent) -> None:
    match event.data.get("do"):
        case "sleep":
            time.sleep(event.data["seconds"])
        case "wait":
            while not os.path.exists(LEDGER + ".go-on"):
                time.sleep(0.02)
        case "work":
            # In steps: time in which this process was stopped counts for one of them.
            for _ in range(round(event.data["seconds"] / 0.05)):
                time.sleep(0.05)
        case "linger":
            # Until somebody has died.
            until = time.monotonic() + 10.0
            while not os.path.exists(LEDGER + ".died") and time.monotonic() < until:
                time.sleep(0.02)
        case "leave a process behind":
            # It has all that this one has open, and outlives it. A fork by C, of which Python knows nothing.
            if ctypes.PyDLL(None).fork() == 0:
                while not os.path.exists(LEDGER + ".go-on"):
                    time.sleep(0.02)
                os._exit(0)
        case "hold the GIL":
            # Inside of one call in C, which looks at no signal.
            collections.deque(itertools.repeat(None), maxlen=0)
        case "hold the GIL in a system call":
            while True:
                ctypes.PyDLL(None).sleep(600)
        case "block signals":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)
        case "ignore signals":
            for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
        case "die":
            die(event)
        case "leak":
            leaked.append(bytearray(os.urandom(1)) * (event.data["mib"] * 2**20))


async def act_async(event: DomainEvent) -> None:
    match event.data.get("do"):
        case "sleep":
            await asyncio.sleep(event.data["seconds"])
        case "linger":
            await asyncio.to_thread(act, event)
        case "die":
            if "with" in event.data:
                await asyncio.to_thread(wait_for_company, event.data["with"])
            die(event)
        case _:
            act(event)


def die(event: DomainEvent) -> None:
    wait_for_company(event.data.get("with", []))
    with open(LEDGER + ".died", "w"):
        pass
    match event.data["of"]:
        case "a read of address 0":
            ctypes.string_at(0)
        case int(code):
            os._exit(code)
        case str(name):
            os.kill(os.getpid(), getattr(signal, name))
    time.sleep(600)


def wait_for_company(numbers: list[int]) -> None:
    """Until this process has these events in hand too; not for ever, for once it may be alone."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        here = {"begin": set[int](), "end": set[int]()}
        for line in whole_objects(LEDGER):
            if line["pid"] == os.getpid():
                here[line["step"]].add(line["n"])
        if set(numbers) <= here["begin"] - here["end"]:
            return
        time.sleep(0.02)


def register(name: str, **options: object) -> None:
    def work(event: DomainEvent) -> None:
        note(name, event, "begin")
        act(event)
        note(name, event, "end")

    async def work_async(event: DomainEvent) -> None:
        note(name, event, "begin")
        await act_async(event)
        note(name, event, "end")

    handler = work_async if "concurrency" in options else work
    receiver.register(handler, PREFIX + name, f"{PREFIX}.{name}.#", **options)  # type: ignore[arg-type]


for given_name, given_options in json.loads(os.environ["TEST_RECEIVERS"]).items():
    register(given_name, **given_options)


@child_started
def refuse() -> None:
    """Whoever boots from now on fails; whoever consumes already goes on."""
    if os.path.exists(LEDGER + ".no-boot"):
        raise RuntimeError("no cup of tea")
