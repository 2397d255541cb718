"""What a scenario is made of: contests, in which peers are measured in turns.

A scenario is a module of benchmarks.speed.scenarios with

    NAME = "consume"
    def contests(rig: Rig) -> Iterable[Contest]: ...
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Values = dict[str, float]
"""What one measurement gave, by name; the name ends with the unit, see `benchmarks.speed.tables.label`."""

Run = Callable[[], Mapping[str, Values]]
"""Measures a peer once; gives the values of each case. What it raises is shown as this round's error."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What a scenario is measured with."""

    url: str
    """AMQP URL of the broker."""
    broker_pid: int | None
    """Of its process, whose CPU counts; None when it runs elsewhere."""
    c_programs: Path | None
    """Folder of the C client; None when there is no compiler or librabbitmq."""
    is_quick: bool = False
    """Try everything, measure nothing."""

    def count(self, full: int) -> int:
        """How many events to use instead of `full`."""
        return max(full // 20, 50) if self.is_quick else full


@dataclass(frozen=True, slots=True)
class Contest:
    """Round by round, each peer once, in an order that changes from round to round."""

    name: str
    """Of the case, or of what its cases have in common."""
    runs: Mapping[str, Run]
    """By peer, as the tables name it."""
    most_rounds: int | None = None
    """Of what hardly varies and takes long."""


def one_case(case: str, runs: Mapping[str, Callable[[], Values]]) -> Contest:
    """Of runs that give the values of just this case."""
    return Contest(case, {peer: lambda run=run: {case: run()} for peer, run in runs.items()})


class Failed(Exception):
    """A peer did not do what is measured. Says what, with what it last wrote."""


def last_words(process: subprocess.CompletedProcess[bytes]) -> str:
    """For a `Failed`: the end of what it wrote to stderr."""
    return process.stderr.decode(errors="replace").strip()[-2000:]
