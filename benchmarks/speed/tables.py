"""Markdown tables of what was measured: a row for each peer, a column for each number.

    python -m benchmarks.speed.tables DIR

Each number is the median of the rounds, with the least and the most in brackets. The last column compares the first
number of the row with that of the reference peer, which has 1.00: see `REFERENCES`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.speed.results import Measured, Spread, machine, names_of, read

TABLES = "tables.md"

OURS = "domain-events"
REFERENCES = ("C, single acks", "C", "dramatiq", "dramatiq, prefetch 64", "dramatiq, 8 threads", "aio-pika")
"""Whom to compare with: the first of them that was measured in a case."""

LABELS = {
    "events_per_second": "events/s",
    "client_cpu_us": "client, µs/event",
    "broker_cpu_us": "broker, µs/event",
    "of_bound_percent": "of the handler's bound, %",
    "pss_mib": "PSS, MiB",
    "pss_of_each_mib": "PSS for each, MiB",
    "cpu_ms": "CPU, ms",
    "idle_cpu_percent": "idle CPU, % of a core",
}
UNITS = {"_us": "µs", "_ms": "ms", "_s": "s", "_mib": "MiB", "_percent": "%"}


def write(folder: Path) -> str:
    """Make `DIR/tables.md` of `DIR/results.jsonl`; returns its text."""
    text = render(read(folder))
    (folder / TABLES).write_text(text)
    return text


def render(measured: Sequence[Measured]) -> str:
    """All scenarios, each with a heading, in the order in which they first came."""
    scenarios = dict.fromkeys(each.scenario for each in measured)
    parts = [_scenario(name, [each for each in measured if each.scenario == name]) for name in scenarios]
    return "\n".join(parts)


def render_machine(folder: Path) -> str:
    """The machine and the versions, as one table."""
    rows = [["", "measured with"], *([name, _flat(value)] for name, value in machine(folder).items())]
    return _table(rows)


def label(name: str) -> str:
    """How a value is called in a table or plot, with its unit."""
    if name in LABELS:
        return LABELS[name]
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')}, {unit}"
    return name.replace("_", " ")


def reference(case: Iterable[Measured]) -> Measured | None:
    """Whom the others of this case are compared with. None when none of `REFERENCES` has anything to show."""
    by_peer = {each.peer: each for each in case if each.values}
    return next((by_peer[peer] for peer in REFERENCES if peer in by_peer), None)


def _scenario(name: str, measured: Sequence[Measured]) -> str:
    lines = [f"### {name}", ""]
    # Cases that give different numbers do not share a table.
    for names, cases in groupby(_cases(measured), key=names_of):
        lines += [_table(list(_rows(names, list(cases)))), ""]
    failed = [f"* {each.case}, {each.peer}: {error}" for each in measured for error in each.errors]
    if failed:
        lines += ["Rounds that failed:", "", *failed, ""]
    return "\n".join(lines)


def _cases(measured: Sequence[Measured]) -> list[list[Measured]]:
    cases = dict.fromkeys(each.case for each in measured)
    return [[each for each in measured if each.case == case] for case in cases]


def _rows(names: Sequence[str], cases: Sequence[Sequence[Measured]]) -> Iterator[list[str]]:
    compared = {peer.peer for case in cases if (peer := reference(case)) and len(case) > 1}
    yield ["case", "peer", *map(label, names), *([f"against {' or '.join(sorted(compared))}"] if compared else [])]
    for case in cases:
        base = reference(case) if len(case) > 1 else None
        for index, each in enumerate(case):
            row = ["" if index else each.case, f"**{each.peer}**" if each.peer == OURS else each.peer]
            row += [_number(each.spread(name)) for name in names]
            if compared:
                ratio = each.ratio(base, names[0]) if base and names else None
                row.append("-" if ratio is None else f"{ratio:.2f}")
            yield row


def _number(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if len(spread.rounds) == 1:
        return _figure(spread.median)
    return f"{_figure(spread.median)} ({_figure(spread.least)} .. {_figure(spread.most)})"


def _figure(value: float) -> str:
    """Three significant digits, and no more after the point than they need."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3f}"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return _figure(value) if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
