"""What a soak has found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.soak.faults import Happened
from benchmarks.soak.reckoning import CONFIRMED, NOT_SENT, UNKNOWN, Sent
from benchmarks.soak.run import Report

AROUND = 15.0
"""Seconds before and after an event was sent, in which a fault may have to do with it."""


def figures(report: Report) -> dict[str, Any]:
    """What can be compared between two runs, as JSON can hold it."""
    outcomes = Counter(each.outcome for each in report.sent.values())
    accounts = report.accounts
    return {
        "options": asdict(report.options),
        "sent": outcomes[CONFIRMED],
        "handled": sum(account.handled for account in accounts),
        "duplicates": sum(account.duplicates for account in accounts),
        "dead": sum(account.dead for account in accounts),
        "dead_again": sum(account.dead_again for account in accounts),
        "left": sum(account.left for account in accounts),
        "lost": report.lost,
        "unknown": outcomes[UNKNOWN],
        "unknown_arrived": len(_arrived(report)),
        "not_sent": outcomes[NOT_SENT],
        "ghosts": sum(len(account.ghosts) for account in accounts),
        "strangers": sum(len(account.strangers) for account in accounts),
        "longest_stall": round(report.stalls[0].seconds, 1),
        "longest_send": round(max((each.seconds or 0.0 for each in report.sent.values()), default=0.0), 1),
        "longest_way": round(report.longest_way, 1),
        "faults": dict(Counter(fault.kind for fault in report.faults)),
        "send_errors": dict(Counter(each.error for each in report.sent.values() if each.outcome != CONFIRMED)),
        "supervisor_exit_codes": {str(code): n for code, n in report.stops.items()},
        "errors": dict(report.findings.errors),
        "receivers": {
            account.receiver: {
                "expected": account.expected,
                "handled": account.handled,
                "duplicates": account.duplicates,
                "dead": account.dead,
                "dead_again": account.dead_again,
                "left": account.left,
                "lost": len(account.lost),
                "unknown": account.unknown,
                "unknown_arrived": len(account.unknown_arrived),
            }
            for account in accounts
        },
        "problems": report.problems,
    }


def text(report: Report) -> Iterator[str]:
    """For people; the last line is the result."""
    found = figures(report)
    columns = ("expected", "handled", "duplicates", "dead", "dead_again", "left", "lost", "unknown", "unknown_arrived")
    yield ""
    yield f"{'receiver':12}" + "".join(f"{name.replace('_', ' '):>16}" for name in columns)
    for name, row in found["receivers"].items():
        yield f"{name:12}" + "".join(f"{row[column]:>16}" for column in columns)
    yield ""
    yield "faults: " + _counts(found["faults"])
    yield "sends that were not confirmed: " + _counts(found["send_errors"])
    yield "exit codes of stopped supervisors: " + _counts(found["supervisor_exit_codes"])
    yield "errors in the logs:"
    yield from (f"  {n:6} {kind}" for kind, n in report.findings.errors.most_common(20))
    yield "longest stalls:"
    for gap in report.stalls[:3]:
        yield f"  {gap.seconds:.1f} s from {gap.began:.1f} s on"
        yield from (f"    {fault}" for fault in _faults(report, gap.began - AROUND / 3, gap.began + gap.seconds))
    for problem in report.problems:
        yield f"PROBLEM {problem}"
    yield ""
    yield (
        f"sent {found['sent']}, handled {found['handled']}, duplicates {found['duplicates']}, dead {found['dead']}, "
        f"lost {found['lost']}, longest stall {found['longest_stall']} s "
        f"(longest send {found['longest_send']} s, way {found['longest_way']} s; "
        f"unknown {found['unknown']}, of which arrived {found['unknown_arrived']}; "
        f"left {found['left']}; faults {len(report.faults)}; problems {len(report.problems)})"
    )


def lost(report: Report) -> Iterator[str]:
    """Each lost event with the faults around it."""
    for account in report.accounts:
        for each in account.lost:
            yield f"{account.receiver} has lost {each.name}: {_history(each)}"
            until = (each.ended or each.began) + AROUND
            yield from (f"    {fault}" for fault in _faults(report, each.began - AROUND, until))


def _history(each: Sent) -> str:
    ended = "never" if each.ended is None else f"{each.ended:.3f} s"
    return f"topic {each.topic}, sender {each.sender}, begun {each.began:.3f} s, {each.outcome} {ended}"


def _faults(report: Report, begin: float, end: float) -> Iterator[Happened]:
    for fault in report.faults:
        if fault.began < end and (fault.ended is None or fault.ended > begin):
            yield fault


def _arrived(report: Report) -> set[str]:
    return {name for account in report.accounts for name in account.unknown_arrived}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items())) or "none"
