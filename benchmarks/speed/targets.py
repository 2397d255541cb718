"""What was promised, and whether it was kept: one line for each target.

python -m benchmarks.speed.targets DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.results import Measured, read

OURS = "domain-events"


@dataclass(frozen=True, slots=True)
class Target:
    """At least, or with `is_cost` at most, `bound`: of the value itself, or of its ratio to that of `against`."""

    scenario: str
    case: str
    value: str
    bound: float
    against: str | None = None
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
    Target("publish many", "pipelined", "events_per_second", 3.0, "aio-pika"),
    Target("latency", "200 events/s", "p50_ms", 1.5, "C", is_cost=True),
    Target("latency", "200 events/s", "p50_ms", 0.5, "dramatiq", is_cost=True),
    Target("memory", "1 receiver", "pss_mib", 18.0, is_cost=True, peer=f"{OURS}, start_consuming"),
    Target("memory", "each further receiver", "pss_mib", 8.0, is_cost=True),
    Target("retries", "burst of 200", "events_per_second", 300.0),
    Target("retries", "burst of 200", "events_per_second", 2.0, "domain-event-broker"),
    Target("retries", "burst of 200", "events_per_second", 2.0, "dramatiq, 8 threads"),
    Target("retries", "burst of 200", "events_per_second", 2.0, "celery, prefork"),
    Target("retries", "20 events/s", "late_p99_ms", 20.0, is_cost=True),
    Target("heavy handler", "200 µs", "of_bound_percent", 85.0),
)


def render(folder: Path, targets: Sequence[Target] = TARGETS) -> str:
    """A check list; what was not measured says so."""
    measured = {(each.scenario, each.case, each.peer): each for each in read(folder)}
    return "\n".join(_line(target, measured) for target in targets)


def _line(target: Target, measured: dict[tuple[str, str, str], Measured]) -> str:
    sign = "<=" if target.is_cost else ">="
    against = ""
    if target.against:
        where = f", {target.against_case}" if target.against_case else ""
        against = f" x {target.against}{where}"
    text = f"{target.scenario}, {target.case}: {target.value} {sign} {target.bound:g}{against}"
    found = _found(target, measured)
    if found is None:
        return f"{text}: not measured"
    is_met = found <= target.bound if target.is_cost else found >= target.bound
    return f"{text}: {found:.2f} {'ok' if is_met else 'MISSED'}"


def _found(target: Target, measured: dict[tuple[str, str, str], Measured]) -> float | None:
    ours = measured.get((target.scenario, target.case, target.peer))
    if ours is None:
        return None
    if target.against is None:
        spread = ours.spread(target.value)
        return spread.median if spread else None
    reference = measured.get((target.scenario, target.against_case or target.case, target.against))
    return ours.ratio(reference, target.value) if reference else None


if __name__ == "__main__":
    print(render(Path(sys.argv[1])))
