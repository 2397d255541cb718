"""From the start of a program to the first event that it has handled. Its queue has just one.

The plain programs, that import nothing but their library. CPU: of all processes of the program until then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from benchmarks.speed import plain
from benchmarks.speed.contest import Contest, Rig, Values, one_case
from benchmarks.speed.measuring import cpu_of
from benchmarks.speed.programs import running

NAME = "start"


def contests(rig: Rig) -> Iterable[Contest]:
    yield one_case("one event", {peer.name: partial(_measure, rig, peer) for peer in plain.ALL})


def _measure(rig: Rig, peer: plain.Plain) -> Values:
    with plain.prepared(rig.url, peer) as place:
        began = time.monotonic()
        with running(peer.command(), place.environment) as program:
            program.wait(lambda: plain.is_first_handled(place), "the first event", 60)
            cpu = sum(map(cpu_of, program.pids()))
        return {"start_ms": (float(place.first.read_text()) - began) * 1000, "cpu_ms": cpu * 1000}
