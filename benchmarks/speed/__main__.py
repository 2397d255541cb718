"""Runs scenarios on the broker of AMQP_URL, writes their results, tables and plots. `bin/bench` calls it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.speed import machine, options, plots, tables, targets
from benchmarks.speed.contest import Contest, Rig
from benchmarks.speed.measuring import broker_pid
from benchmarks.speed.options import Options
from benchmarks.speed.peers import c
from benchmarks.speed.results import RESULTS, Writer
from benchmarks.speed.scenarios import load

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    asked = options.read(argv)
    folder = asked.folder or ROOT / "bench-results" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    url = os.environ["AMQP_URL"]
    rig = Rig(url=url, broker_pid=broker_pid(url), c_programs=c.build(), is_quick=asked.is_quick)
    scenarios = [load(name) for name in asked.scenarios]
    writer = Writer(folder / RESULTS)
    facts = machine.facts(rig, rounds=asked.rounds)
    machine.write(folder, facts)
    # Ended like by Ctrl-C: what runs then is in a session of its own and would go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    was_interrupted = False
    try:
        for scenario in scenarios:
            for contest in scenario.contests(rig):
                _hold(scenario.NAME, contest, writer, asked)
    except KeyboardInterrupt:
        was_interrupted = True  # half an hour of results is not thrown away
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    minutes = round((time.monotonic() - began) / 60, 1)
    machine.write(folder, facts | machine.facts_afterwards(minutes, was_interrupted=was_interrupted))
    print(tables.write(folder))
    print(targets.render(folder), flush=True)
    plots.draw(folder)
    _say(f"{'cut short after' if was_interrupted else 'measured in'} {minutes} minutes; all of it is in {folder}")
    if was_interrupted:
        return INTERRUPTED
    return 1 if writer.failures else 0


def _hold(scenario: str, contest: Contest, writer: Writer, asked: Options) -> None:
    peers = [peer for peer in contest.runs if asked.wants(peer)]
    for number in range(1, min(asked.rounds, contest.most_rounds or asked.rounds) + 1):
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


def _turned(peers: Sequence[str], number: int) -> list[str]:
    """Each round begins with another one, and every other round goes backwards: none always follows the same."""
    first = (number - 1) % max(len(peers), 1)
    ordered = [*peers[first:], *peers[:first]]
    return ordered if number % 2 else ordered[::-1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
