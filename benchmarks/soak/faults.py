"""What goes wrong, when and for how long, drawn from dice: one lane for what can have one fault at a time."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.soak.books import Clock
from benchmarks.soak.nodes import NodeError, Nodes
from benchmarks.soak.wires import Wire

Fault = Callable[["Strike"], None]

REPAIRS = 3
"""How often a node is started again before we give up on it."""


@dataclass(slots=True)
class Happened:
    """A fault, from its begin to the end of its repair."""

    kind: str
    what: str
    began: float
    ended: float | None = None

    def __str__(self) -> str:
        until = "..." if self.ended is None else f"{self.ended:.1f}"
        return f"{self.began:8.1f} to {until:>8} s  {self.kind} {self.what}".rstrip()


class Strike:
    """One fault while it is done: the dice, the time that it may take, and its place in the diary."""

    def __init__(self, dice: random.Random, stop: threading.Event, entry: Happened) -> None:
        self.dice = dice
        self._stop = stop
        self._entry = entry

    def hold(self, least: float, most: float) -> None:
        """As it is, for some seconds; shorter when the soak ends."""
        self._stop.wait(self.dice.uniform(least, most))

    def name(self, what: str) -> None:
        self._entry.what = what


class Lane:
    """Faults that come one after the other, with pauses; lanes do not wait for each other."""

    def __init__(
        self,
        name: str,
        faults: Mapping[str, tuple[float, Fault]],
        *,
        seed: int,
        pause: float,
        clock: Clock,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        """`faults`: by kind, how likely each is and what it does. `pause`: seconds between two, on average."""
        self._name = name
        self._faults = faults
        self._dice = random.Random(f"{seed} {name}")
        self._pause = pause
        self._clock = clock
        self._stop = stop
        self._say = say
        self.happened: list[Happened] = []
        self.problem: str | None = None
        """Why this lane has ended before its time."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.problem = self.problem or f"{self.happened[-1]} is not repaired"

    def _run(self) -> None:
        kinds, weights = list(self._faults), [weight for weight, _ in self._faults.values()]
        while not self._stop.wait(self._dice.uniform(0.5, 1.5) * self._pause):
            [kind] = self._dice.choices(kinds, weights)
            entry = Happened(kind, "", self._clock.now())
            self.happened.append(entry)
            # Dice of its own: how much a fault draws does not change what comes after it.
            strike = Strike(random.Random(self._dice.random()), self._stop, entry)
            try:
                self._faults[kind][1](strike)
            except NodeError as error:
                self.problem = f"{entry}: {error}"
                return
            except Exception:  # noqa: BLE001  whatever it is, the soak reports it with all else
                self.problem = f"{entry}: {traceback.format_exc()}"
                return
            finally:
                entry.ended = self._clock.now()
                self._say(str(entry))


def node_faults(nodes: Nodes) -> dict[str, tuple[float, Fault]]:
    """One node at a time, so that a cluster of three keeps its majority."""

    def choose(strike: Strike) -> int:
        node = strike.dice.randint(1, nodes.count)
        strike.name(f"node {node}")
        return node

    def kill(strike: Strike) -> None:
        node = choose(strike)
        nodes.kill(node)
        strike.hold(1.0, 6.0)
        bring_back(node)

    def roll(strike: Strike) -> None:
        node = choose(strike)
        nodes.stop(node)
        strike.hold(0.0, 3.0)
        bring_back(node)

    def pause(strike: Strike) -> None:
        node = choose(strike)
        nodes.pause(node)
        try:
            strike.hold(3.0, 8.0)
        finally:
            nodes.resume(node)

    def block(strike: Strike) -> None:
        node = choose(strike)
        nodes.block(node)
        try:
            strike.hold(2.0, 6.0)
        finally:
            nodes.unblock(node)

    def close(strike: Strike) -> None:
        nodes.close_connections(choose(strike))

    def bring_back(node: int) -> None:
        for attempt in range(1, REPAIRS + 1):
            try:
                nodes.restart(node)
            except NodeError:
                if attempt == REPAIRS:
                    raise
            else:
                return

    return {
        "node killed": (3, kill),
        "node restarted": (2, roll),
        "node paused": (3, pause),
        "memory alarm": (2, block),
        "connections closed": (2, close),
    }


def wire_faults(wires: Mapping[str, Sequence[Wire]]) -> dict[str, tuple[float, Fault]]:
    """`wires`: those of the senders, and those of the receivers: one to each node."""

    def choose(strike: Strike) -> Sequence[Wire]:
        side = strike.dice.choice([*wires, "all"])
        chosen = [wire for name, each in wires.items() if side in (name, "all") for wire in each]
        node = strike.dice.randrange(len(wires[next(iter(wires))]) + 1)
        if node == 0:
            strike.name(f"{side}, every node")
            return chosen
        strike.name(f"{side}, node {node}")
        return [each[node - 1] for name, each in wires.items() if side in (name, "all")]

    def once(what: Callable[[Wire], None]) -> Fault:
        def do(strike: Strike) -> None:
            for wire in choose(strike):
                what(wire)

        return do

    def hole(strike: Strike) -> None:
        chosen = choose(strike)
        try:
            for wire in chosen:
                wire.hole(on=True)
            strike.hold(2.0, 20.0)
            if strike.dice.random() < 0.5:  # what was held up never arrives
                for wire in chosen:
                    wire.reset()
        finally:
            for wire in chosen:
                wire.hole(on=False)

    def slow(strike: Strike) -> None:
        chosen = choose(strike)
        try:
            for wire in chosen:
                wire.slow(strike.dice.uniform(0.02, 0.8))
            strike.hold(3.0, 10.0)
        finally:
            for wire in chosen:
                wire.slow(0.0)

    return {
        "connections cut": (3, once(Wire.cut)),
        "connections reset": (3, once(Wire.reset)),
        "connections half open": (1, once(Wire.half_open)),
        "black hole": (2, hole),
        "latency": (2, slow),
    }


class Victims(Protocol):
    """The processes of the soak, as their faults need them."""

    def kill_child(self, dice: random.Random) -> str: ...
    def pause_child(self, dice: random.Random, hold: Callable[[], None]) -> str: ...
    def kill_sender(self, dice: random.Random) -> str: ...
    def kill_master(self) -> str: ...
    def restart_master(self) -> str: ...
    def reload(self) -> str: ...
    def scale(self, dice: random.Random) -> str: ...


def process_faults(victims: Victims) -> dict[str, tuple[float, Fault]]:
    def named(do: Callable[[Strike], str]) -> Fault:
        return lambda strike: strike.name(do(strike))

    return {
        "child killed": (4, named(lambda strike: victims.kill_child(strike.dice))),
        "child paused": (1, named(lambda strike: victims.pause_child(strike.dice, lambda: strike.hold(1.0, 5.0)))),
        "sender killed": (3, named(lambda strike: victims.kill_sender(strike.dice))),
        "master killed": (1, named(lambda strike: victims.kill_master())),
        "supervisor restarted": (1, named(lambda strike: victims.restart_master())),
        "reload": (2, named(lambda strike: victims.reload())),
        "scaled": (2, named(lambda strike: victims.scale(strike.dice))),
    }
