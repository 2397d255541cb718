"""What was promised, and whether it was kept: one line for each target.

python -m benchmarks.speed.targets DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.results import Measured, read
from benchmarks.speed.tables import OURS, label

THE_BEST = "the best of the others"


@dataclass(frozen=True, slots=True)
class Target:
    """At least, or with `is_cost` at most, `bound`: of the value itself, or of its ratio to that of `against`."""

    scenario: str
    case: str
    value: str
    bound: float
    against: str | None = None
    """A peer, or `THE_BEST` but us."""
    against_case: str | None = None
    """The case of `against`, when it is another one."""
    is_cost: bool = False
    peer: str = OURS


SINGLE = "C, single acks"
DRAMATIQ = "dramatiq, prefetch 64"
"""Twice as fast as with its default."""
TARGETS = (
    Target("consume", "classic", "events_per_second", 1.0, SINGLE),
    Target("consume", "classic", "events_per_second", 2.0, "bare pika, SelectConnection"),
    Target("consume", "classic", "events_per_second", 6.0, DRAMATIQ),
    Target("consume", "classic", "events_per_second", 15.0, "celery, prefork"),
    Target("consume", "classic", "client_cpu_us", 30.0, is_cost=True),
    Target("consume", "quorum", "events_per_second", 0.8, SINGLE),
    Target("consume", "quorum", "events_per_second", 5.0, DRAMATIQ),
    Target("publish one by one", "confirmed", "p50_ms", 1.4, "C", is_cost=True),
    Target("publish from threads", "16 threads", "events_per_second", 3.0, OURS, "1 thread"),
    Target("publish many", "pipelined", "events_per_second", 0.8, "C"),
    Target("publish many", "pipelined", "events_per_second", 0.8, "C, our properties"),  # the same for the broker
    Target("publish many", "pipelined", "events_per_second", 3.0, "aio-pika"),
    Target("latency", "200 events/s", "p50_ms", 1.5, "C", is_cost=True),
    Target("latency", "200 events/s", "p50_ms", 0.5, "dramatiq", is_cost=True),
    Target("memory", "1 receiver", "pss_mib", 18.0, is_cost=True, peer=f"{OURS}, start_consuming"),
    Target("memory", "each further receiver", "pss_mib", 8.0, is_cost=True),
    Target("retries", "burst of 200", "events_per_second", 300.0),
    Target("retries", "burst of 200", "events_per_second", 2.0, THE_BEST),
    Target("retries", "20 events/s", "late_p99_ms", 20.0, is_cost=True),
    Target("heavy handler", "200 µs", "of_bound_percent", 85.0),
)


def render(folder: Path, targets: Sequence[Target] = TARGETS) -> str:
    """A check list; what was not measured says so.

    Where we are compared with another, the CPU per event follows, of client and broker together: on a machine that has
    other work too, it says more than the clock on the wall.
    """
    measured = read(folder)
    return "\n".join(_line(target, measured) for target in targets)


def _line(target: Target, measured: Sequence[Measured]) -> str:
    sign = "<=" if target.is_cost else ">="
    who = "" if target.peer == OURS else f" ({target.peer})"
    against = f" x {target.against}" if target.against else ""
    where = f", {target.against_case}" if target.against_case else ""
    promise = f"{target.scenario}, {target.case}{who}: {label(target.value)} {sign} {target.bound:g}{against}{where}"
    ours = next((each for each in _in_case(target.scenario, target.case, measured) if each.peer == target.peer), None)
    if ours is None:
        return f"{promise}: not measured"
    if target.against is None:
        spread = ours.spread(target.value)
        return f"{promise}: {_verdict(target, spread.median)}" if spread else f"{promise}: not measured"
    ratios = {
        ratio: reference
        for reference in _references(target, measured)
        if (ratio := ours.ratio(reference, target.value)) is not None
    }
    if not ratios:
        return f"{promise}: not measured"
    # Of several, whoever is hardest to beat.
    ratio = max(ratios) if target.is_cost else min(ratios)
    mine, theirs = _cpu(ours), _cpu(ratios[ratio])
    cpu = f" (CPU {mine:.0f} µs/event, theirs {theirs:.0f})" if mine and theirs else ""
    return f"{promise}: {_verdict(target, ratio)}{cpu}"


def _verdict(target: Target, found: float) -> str:
    is_met = found <= target.bound if target.is_cost else found >= target.bound
    return f"{found:.2f} {'ok' if is_met else 'MISSED'}"


def _references(target: Target, measured: Sequence[Measured]) -> list[Measured]:
    others = _in_case(target.scenario, target.against_case or target.case, measured)
    if target.against == THE_BEST:
        return [each for each in others if not each.peer.startswith(OURS)]
    return [each for each in others if each.peer == target.against]


def _in_case(scenario: str, case: str, measured: Sequence[Measured]) -> list[Measured]:
    return [each for each in measured if (each.scenario, each.case) == (scenario, case)]


def _cpu(measured: Measured) -> float | None:
    """Microseconds for each event, at the client and at the broker."""
    client, broker = measured.spread("client_cpu_us"), measured.spread("broker_cpu_us")
    return client.median + broker.median if client and broker else None


if __name__ == "__main__":
    print(render(Path(sys.argv[1])))
