"""A supervisor without a broker: children that behave as a test asks, and a look at what it writes.

`python -m tests.supervising printer=steady mailer=crash --grace 1`: the receiver `mailer` crashes. The
behaviours are the functions at the end. TEST_BOOT=fail|hang|held is what happens in each child before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from domain_events.errors import ConfigurationError
from domain_events.events import DomainEvent
from domain_events.observers import Observer
from domain_events.oversight import Oversight
from domain_events.registration import Registration
from domain_events.stopping import Stop
from domain_events.supervisor import launch
from domain_events.supervisor.arguments import add_arguments, read_options
from domain_events.supervisor.formats import configure
from domain_events.supervisor.loading import channel_to_master, serve
from domain_events.supervisor.lock import Lock
from domain_events.supervisor.master import run
from domain_events.supervisor.selection import select as select_receivers
from tests.growing import whole_lines
from tests.processes import Handle, Processes
from tests.registrations import register
from tests.waiting import wait_until

Line = dict[str, Any]
PATIENCE = 60.0
"""Seconds that a test waits for what takes a moment. A slow machine is no failure, only what never comes is."""
QUICK = ("--backoff", "0.05:0.2", "--grace", "600", "--kill-after", "600", "--log-format", "json")
"""Whoever waits for the grace, or for a kill, where nobody should, is not through within PATIENCE."""


class Supervised:
    """A master and its children, in processes of their own."""

    def __init__(self, processes: Processes, *arguments: str, **env: str) -> None:
        command = [sys.executable, "-m", "tests.supervising", *arguments[:1], *QUICK, *arguments[1:]]
        self.handle: Handle = processes.start(command, env=env)
        self.pid = self.handle.pid

    def lines(self, event: str, **fields: object) -> list[Line]:
        """The log lines with this event and these fields, so far."""
        wanted = {"event": event, **fields}
        return [line for line in self.log() if wanted.items() <= line.items()]

    def log(self) -> list[Line]:
        found = []
        for text in whole_lines(self.handle.log):
            if text.startswith("{") and text.endswith("}"):
                found.append(json.loads(text))
        return found

    def wait_line(self, event: str, count: int = 1, deadline: float = PATIENCE, **fields: object) -> Line:
        """The `count`-th line with this event and these fields."""

        def found() -> list[Line]:
            ended = self.handle.returncode is not None  # asked before reading: what was written last is read
            lines = self.lines(event, **fields)
            assert len(lines) >= count or not ended, f"the master ended without {count} x {event} {fields}"
            return lines if len(lines) >= count else []

        try:
            return wait_until(found, deadline, f"{count} x {event} {fields}")[count - 1]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.handle.output()[-4000:]}") from None

    def pid_of(self, slot: str) -> int:
        """Of the child that consumes, or that was started last."""
        return int(self.wait_line("child_start", slot=slot) and self.lines("child_start", slot=slot)[-1]["pid"])

    def send(self, number: int) -> None:
        self.handle.send(number)

    def wait(self, deadline: float = PATIENCE) -> int:
        """The exit code of the master. Nothing of its tree may be left, and no traceback of ours be there."""
        code = self.handle.wait(deadline)
        assert self.handle.group() == [], self.handle.output()[-4000:]
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()


def main() -> int:
    launch.remember()
    parser = argparse.ArgumentParser()
    parser.add_argument("receivers")
    add_arguments(parser)
    arguments = parser.parse_args()
    options = read_options(vars(arguments), os.environ)
    configure(options.log_level, options.log_format)

    def load() -> tuple[Registration, ...]:
        return select_receivers([registered(pair) for pair in _pairs(arguments.receivers)], options)

    channel = channel_to_master(os.environ)
    if channel is not None:
        return serve(channel, load, consume=consume, boot=boot, title="tests")
    lock = Lock(options.lock) if options.lock else None
    registrations = load()
    limit()
    title = BadTitle() if os.environ.get("TEST_ERROR") else "tests"
    return run(registrations, options, consume=consume, boot=boot, title=title, lock=lock)


def _pairs(text: str) -> list[str]:
    """`@FILE` stands for what is in the file: it can change before a reload."""
    return (Path(text[1:]).read_text() if text.startswith("@") else text).split()


class BadTitle(str):
    """Fails in the master's loop as soon as a child consumes, as a mistake of ours might."""

    failures = 0

    def __format__(self, spec: str) -> str:
        self.failures += 1
        if self.failures > 1:
            raise RuntimeError("a mistake in the loop")
        return "bad"


def limit() -> None:
    """What the operating system refuses."""
    match os.environ.get("TEST_LIMIT"):
        case "processes":
            if os.getuid() == 0:
                os.setuid(65534)  # the limit does not bind root
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        case "pidfd":
            del os.pidfd_open  # as on a kernel before 5.3
        case "descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
        case "1024 descriptors":  # as in a shell
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def registered(pair: str) -> Registration:
    """`printer=steady`, or with more for the registration: `printer=steady:timeout=1.5:processes=2`."""
    if pair in BROKEN:
        BROKEN[pair]()
    name, _, rest = pair.partition("=")
    behaviour, *given = rest.split(":")
    options = {key: json.loads(value) for key, value in (text.split("=", 1) for text in given)}
    return register(print, name, [behaviour], connection_settings=None, **options)


def _be_refused() -> None:
    raise ConfigurationError("this code is broken")


def _hang() -> None:
    while True:
        time.sleep(0.01)


def _die() -> None:
    os._exit(3)


def _fork_and_die() -> None:
    """The fork has all descriptors, and keeps them open."""
    if os.fork():
        os._exit(4)
    time.sleep(600)


def _scribble() -> None:
    """Writes to all that is open, as to its own."""
    for fd in range(3, 100):
        with contextlib.suppress(OSError):
            os.write(fd, b"hello\n")


def _close_all() -> None:
    os.closerange(3, 100)
    time.sleep(600)


BROKEN = {
    "broken": _be_refused,
    "exit": sys.exit,
    "hang": _hang,
    "die": _die,
    "fork-and-die": _fork_and_die,
    "scribble": _scribble,
    "close-all": _close_all,
}
"""Code that cannot be loaded."""


def boot() -> None:
    match os.environ.get("TEST_BOOT"):
        case "fail":
            raise RuntimeError("no cup of tea")
        case "hang":
            while True:
                time.sleep(0.01)
        case "held":
            wait_to_go_on()


def wait_to_go_on() -> None:
    """Until the test makes the file TEST_GO_ON."""
    while not os.path.exists(os.environ["TEST_GO_ON"]):
        time.sleep(0.01)


def consume(
    registrations: Sequence[Registration],
    /,
    *,
    stop: Stop,
    observer: Observer,
    oversight: Oversight,
) -> None:
    [registration] = registrations
    BEHAVIOURS[registration.binding_keys[0].replace("-", "_")](stop, observer, oversight)


def steady(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    observer.consuming()
    watch(stop, oversight.forced)


def waiting(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    observer.disconnected("nobody\nhome")
    watch(stop, oversight.forced)


def talk(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Says on each way that it is here."""
    logging.getLogger("app").warning("new code talks")
    steady(stop, observer, oversight)


def never(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Boots, and does not get any further."""
    watch(stop, oversight.forced)


def when_told(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Does not consume before the test makes the file TEST_GO_ON."""
    wait_to_go_on()
    steady(stop, observer, oversight)


def slowly(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    time.sleep(1.0)
    steady(stop, observer, oversight)


def away_and_crash(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    observer.disconnected("nobody home")
    time.sleep(0.3)
    raise RuntimeError("crashed as asked")


def leaves_program(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Starts a family that hears no SIGTERM, in a session of its own."""
    text = "trap '' TERM; sleep 600 & wait; sleep 600"
    subprocess.Popen(["sh", "-c", f"trap '' TERM; (sh -c \"{text}\" & wait; sleep 600) & wait"], start_new_session=True)
    steady(stop, observer, oversight)


def leaves_zombies(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """What it starts outlives its parent, and ends soon after."""
    for _ in range(20):
        subprocess.run(["sh", "-c", "sleep 0.2 & exit"], check=True)
    steady(stop, observer, oversight)


def crash(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    raise RuntimeError("crashed as asked")


def crash_later(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    observer.consuming()
    time.sleep(1.0)
    raise RuntimeError("crashed as asked")


def exit_three(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    os._exit(3)


def give_in(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Returns though nobody has asked."""


def misconfigured(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    raise ConfigurationError("the queue has other arguments")


def dies_with_event(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    observer.consuming()
    observer.started("r", DomainEvent("user.disabled", {}, uuid_string="in-hand-1"))
    os.kill(os.getpid(), signal.SIGKILL)


def busy(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """A handler that takes two seconds in C code, with the signals read by another thread."""
    event = _begin(stop, observer, oversight)
    time.sleep(2.0)
    observer.handled("r", event, 2.0)
    watch(stop, None)


def held(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """A handler at work until the test makes the file TEST_GO_ON."""
    event = _begin(stop, observer, oversight)
    wait_to_go_on()
    observer.handled("r", event, 1.0)
    watch(stop, None)


def endless(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """A handler that never returns; the other thread leaves when it is told to."""
    _begin(stop, observer, oversight)
    while True:
        time.sleep(0.01)


def deaf(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Nothing but SIGKILL ends it."""
    observer.consuming()
    observer.started("r", DomainEvent("user.disabled", {}, uuid_string="in-hand-1"))
    while True:
        time.sleep(0.01)


def descriptors(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Says what is open here."""
    found = {}
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(FileNotFoundError):  # that of listdir itself
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    _say(descriptors=found)
    steady(stop, observer, oversight)


def environment(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    _say(environment=sorted(os.environ))
    steady(stop, observer, oversight)


def dice(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    import random

    _say(dice=random.random())
    steady(stop, observer, oversight)


def _begin(stop: Stop, observer: Observer, oversight: Oversight) -> DomainEvent:
    observer.consuming()
    event = DomainEvent("user.disabled", {}, uuid_string="in-hand-1")
    observer.started("r", event)
    threading.Thread(target=watch, args=(stop, lambda _: oversight.forced(True), True), daemon=True).start()
    return event


def watch(stop: Stop, forced: Callable[[bool], None] | None, for_ever: bool = False) -> None:
    """What the I/O thread does for the signals; returns when a stop was asked for."""
    while for_ever or not stop.requested:
        select.select([stop], [], [], 1.0)
        if signal.SIGQUIT in stop.read_signals() and forced:
            forced(False)


def _say(**values: object) -> None:
    # One write: children of one master share this file.
    os.write(1, (json.dumps(values) + "\n").encode())


BEHAVIOURS = {
    behaviour.__name__: behaviour
    for behaviour in (
        steady,
        talk,
        never,
        when_told,
        slowly,
        waiting,
        away_and_crash,
        leaves_program,
        leaves_zombies,
        crash,
        crash_later,
        exit_three,
        give_in,
        misconfigured,
        dies_with_event,
        busy,
        held,
        endless,
        deaf,
        descriptors,
        environment,
        dice,
    )
}

if __name__ == "__main__":
    sys.exit(main())
