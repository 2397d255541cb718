"""What `bin/bench` can be asked. Imports nothing that must be installed: the command line is judged before set-up.

python3 -m benchmarks.speed.options ARGS: says what is wrong with them, and nothing when all is well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.scenarios import NAMES

ROUNDS = 5


@dataclass(frozen=True)  # and no more: the python3 of the machine may be an old one
class Options:
    scenarios: tuple[str, ...]
    peers: tuple[str, ...]
    """How their names begin; empty: all."""
    rounds: int
    folder: Path | None
    """For what comes of it."""
    is_quick: bool

    def wants(self, peer: str) -> bool:
        return not self.peers or peer.startswith(self.peers)


def read(argv: Sequence[str] | None = None) -> Options:
    """Exits like argparse for what it does not understand."""
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="How fast is it, next to others? Measures side by side, prints tables and targets, draws plots.",
        epilog="And --broker-version 3.10, 4.0 or 4.3. Exit code: 1 when a measurement failed, else 0; whether the "
        "targets are met is printed, and no failure.",
    )
    parser.add_argument(
        "--scenario", action="append", choices=NAMES, metavar="NAME", help=f"only these of {', '.join(NAMES)}"
    )
    parser.add_argument("--peer", action="append", metavar="NAME", help="only peers whose names begin so, as celery")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, metavar="N", help=f"of all measurements ({ROUNDS})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results, tables and plots (bench-results/DATE)")
    parser.add_argument("--quick", action="store_true", help="one round, few events: tries all, measures nothing")
    given = parser.parse_args(argv)
    return Options(
        scenarios=tuple(given.scenario or NAMES),
        peers=tuple(given.peer or ()),
        rounds=1 if given.quick else given.rounds,
        folder=given.out,
        is_quick=given.quick,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    read()
