"""Runs scenarios on the broker of AMQP_URL, writes their results, tables and plots. `bin/bench` calls it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.speed import machine, plots, tables, targets
from benchmarks.speed.contest import Contest, Rig
from benchmarks.speed.measuring import broker_pid
from benchmarks.speed.peers import c
from benchmarks.speed.results import RESULTS, Writer
from benchmarks.speed.scenarios import NAMES, exists, load

ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    folder = options.out or ROOT / "bench-results" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    url = os.environ["AMQP_URL"]
    rig = Rig(url=url, broker_pid=broker_pid(url), c_programs=c.build(), is_quick=options.quick)
    machine.write(folder, rig, rounds=options.rounds)
    # What was there belongs to another run.
    (folder / RESULTS).unlink(missing_ok=True)
    writer = Writer(folder / RESULTS)
    began = time.monotonic()
    for name in options.scenario or filter(exists, NAMES):
        scenario = load(name)
        for contest in scenario.contests(rig):
            _hold(scenario.NAME, contest, writer, options)
    _say(f"measured in {(time.monotonic() - began) / 60:.1f} minutes; all of it is in {folder}")
    print(tables.write(folder))
    plots.draw(folder)
    print(targets.render(folder))
    return 1 if writer.failures else 0


def _hold(scenario: str, contest: Contest, writer: Writer, options: argparse.Namespace) -> None:
    peers = [peer for peer in contest.runs if _is_wanted(peer, options.peer)]
    for number in range(1, (1 if options.quick else options.rounds) + 1):
        for peer in _turned(peers, number):
            _say(f"{scenario}, {contest.name}, round {number}: {peer}")
            try:
                by_case = contest.runs[peer]()
            except Exception as error:  # noqa: BLE001 - of a peer, and must not end the others
                _say(f"  failed: {error!r}")
                writer.write_error(scenario, contest.name, peer, number, error)
                continue
            for case, values in by_case.items():
                writer.write(scenario, case, peer, number, values)
                _say("  " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def _turned(peers: Sequence[str], number: int) -> Iterator[str]:
    """Each round begins with another one, and every other round goes backwards: none always follows the same."""
    first = number - 1
    ordered = [*peers[first % len(peers) :], *peers[: first % len(peers)]] if peers else []
    return iter(ordered if number % 2 else ordered[::-1])


def _is_wanted(peer: str, wanted: Iterable[str] | None) -> bool:
    """The beginning of a name is enough: "C" is both C clients, "celery" all ways to run it."""
    return not wanted or any(peer.startswith(name) for name in wanted)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="How fast is it, next to others? Measures side by side, prints tables, draws plots.",
        epilog="exit code: 1 when a measurement failed, else 0; whether the targets are met, it prints",
    )
    parser.add_argument(
        "--scenario", action="append", choices=NAMES, metavar="NAME", help=f"only these of {', '.join(NAMES)}"
    )
    parser.add_argument("--peer", action="append", metavar="NAME", help="only peers whose names begin so, as celery")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of each measurement ({ROUNDS})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results, tables and plots (bench-results/DATE)")
    parser.add_argument("--quick", action="store_true", help="one round, few events: tries all, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
