"""The processes of a soak: a supervisor and the senders. Who is killed is started again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak.nodes import ROOT
from tests import proc
from tests.processes import Handle

SUPERVISOR = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor")]
FLAGS = (
    *("--log-format", "json", "--grace", "15", "--kill-after", "5"),
    *("--backoff", "0.2:2", "--stable-after", "2", "--give-up-after", "0"),
)
LONGEST_STOP = 60.0
MOST_MORE = 2
"""So many processes more than registered, at most."""


@dataclass(slots=True)
class Sending:
    """The place of a sender: it has had `lives` processes so far."""

    name: str
    kind: str
    rate: float
    lives: int
    handle: Handle


class Processes:
    """Used by the lane of their faults, and by the main thread, which looks after them."""

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str],
        sender_urls: str,
        receiver_urls: str,
        seed: int,
        rate: float,
    ) -> None:
        self._folder = folder
        self._env = env
        self._sender_urls = sender_urls
        self._receiver_urls = receiver_urls
        self._seed = seed
        self._rate = rate
        self._lock = threading.RLock()
        self._handles: list[Handle] = []
        self._master: Handle | None = None
        self._senders: list[Sending] = []
        self._more = 0
        self.problems: list[str] = []
        self.stops: Counter[int] = Counter()
        """Exit codes of supervisors that were asked to stop."""

    # Beginning and end

    def start_master(self) -> Handle:
        number = len(list(self._folder.glob("supervisor-*.log"))) + 1
        self._master = self._start(
            [*SUPERVISOR, *FLAGS, "--lock", str(self._folder / "lock"), "benchmarks.soak.receivers"],
            self._receiver_urls,
            f"supervisor-{number}.log",
        )
        self._more = 0
        return self._master

    def start_sender(self, name: str, kind: str, rate: float) -> None:
        self._senders.append(Sending(name, kind, rate, 1, self._start_sender(name, kind, rate, 1)))

    def look_after(self) -> None:
        """Starts again what has ended though nobody has killed it; that is a problem."""
        with self._lock:
            master = self._master
            if master is not None and (code := master.returncode) is not None:
                self.problems.append(f"the supervisor has ended by itself with {code}")
                self.start_master()
            for each in self._senders:
                if (code := each.handle.returncode) is not None:
                    self.problems.append(f"sender {each.name} has ended by itself with {code}: {_last_line(each)}")
                    self._revive(each)

    def stop_senders(self) -> None:
        with self._lock:
            for each in self._senders:
                each.handle.terminate()
            for each in self._senders:
                try:
                    code = each.handle.wait(LONGEST_STOP)
                except AssertionError:
                    code = None
                if code != 0:
                    self.problems.append(f"sender {each.name} has ended with {code}: {_last_line(each)}")
            self._senders.clear()

    def stop_master(self) -> None:
        """In peace; it must leave nothing behind."""
        with self._lock:
            if (code := self._stopped()) != 0:
                self.problems.append(f"the supervisor has ended with {code} though nothing was wrong")
            for handle in self._handles:
                if left := handle.group():
                    titles = ", ".join(proc.title(pid) for pid in left)
                    self.problems.append(f"left behind: {titles}")

    def end(self) -> None:
        """Kills whatever is left."""
        with self._lock:
            for handle in self._handles:
                handle.end()

    # What the faults do

    def kill_child(self, dice: random.Random) -> str:
        pid, title = self._draw_child(dice)
        _kill(pid, signal.SIGKILL)
        return title

    def pause_child(self, dice: random.Random, hold: Callable[[], None]) -> str:
        pid, title = self._draw_child(dice)
        _kill(pid, signal.SIGSTOP)
        try:
            hold()
        finally:
            _kill(pid, signal.SIGCONT)
        return title

    def kill_sender(self, dice: random.Random) -> str:
        with self._lock:
            each = dice.choice(self._senders)
            each.handle.kill()
            each.handle.wait()
            self._revive(each)
            return each.name

    def kill_master(self) -> str:
        with self._lock:
            if self._master is not None:
                self._master.kill()
                self._master.wait()
            self.start_master()
        return ""

    def restart_master(self) -> str:
        with self._lock:
            code = self._stopped()
            self.start_master()
        return f"ended with {code}"

    def reload(self) -> str:
        return self._tell_master(signal.SIGHUP)

    def scale(self, dice: random.Random) -> str:
        up = dice.random() < 0.5
        up = (up or self._more == 0) and self._more < MOST_MORE
        self._more += 1 if up else -1
        return self._tell_master(signal.SIGTTIN if up else signal.SIGTTOU)

    # How

    def _stopped(self) -> int | None:
        """The exit code of the supervisor after SIGTERM; None when it does not end."""
        master, self._master = self._master, None
        if master is None:
            return None
        if (code := master.returncode) is not None:
            self.problems.append(f"the supervisor had ended by itself with {code}")
            return code
        master.terminate()
        try:
            code = master.wait(LONGEST_STOP)
        except AssertionError:
            self.problems.append(f"the supervisor has not ended within {LONGEST_STOP:g} s")
            master.end()
            return None
        self.stops[code] += 1
        return code

    def _tell_master(self, number: signal.Signals) -> str:
        with self._lock:
            if self._master is not None:
                self._master.send(number)
        return number.name

    def _draw_child(self, dice: random.Random) -> tuple[int | None, str]:
        if self._master is None:
            return None, "nobody"
        children = sorted((proc.title(pid), pid) for pid in proc.children(self._master.pid))
        if not children:
            return None, "nobody"
        title, pid = dice.choice(children)
        return pid, title.removeprefix("domain-events: ")

    def _revive(self, each: Sending) -> None:
        each.lives += 1
        each.handle = self._start_sender(each.name, each.kind, each.rate, each.lives)

    def _start_sender(self, name: str, kind: str, rate: float, life: int) -> Handle:
        argv = [sys.executable, "-m", "benchmarks.soak.sender"]
        argv += [f"{name}.{life}", kind, str(self._seed), str(rate), str(self._rate)]
        return self._start(argv, self._sender_urls, f"sender-{name}.{life}.log")

    def _start(self, argv: list[str], urls: str, log: str) -> Handle:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DOMAIN_EVENT_", "DOMAIN_EVENTS_"))}
        env |= {"PYTHONUNBUFFERED": "1", "DOMAIN_EVENT_BROKER": urls, **self._env}
        handle = Handle(argv, env, ROOT, self._folder / log)
        self._handles.append(handle)
        return handle


def _kill(pid: int | None, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        if pid is not None:
            os.kill(pid, number)


def _last_line(each: Sending) -> str:
    return (each.handle.output().strip().splitlines() or ["nothing said"])[-1]
