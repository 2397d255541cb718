"""The command.

    python -m benchmarks.soak --minutes 1
    python -m benchmarks.soak --minutes 30 --nodes 3 --version 4.3 --seed 7 --json soak.json

Exit code: 0 nothing lost, 1 an event was lost or something happened that must not, 2 the broker did not obey, so that
nothing was measured. Ctrl-C ends everything that was started.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak.nodes import NodeError
from benchmarks.soak.report import figures, lost, text
from benchmarks.soak.run import Options, soak

NOT_MEASURED = 2
INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults (default: 10)")
    parser.add_argument("--nodes", type=int, default=1, help="of the broker (default: 1)")
    parser.add_argument("--version", help="of RabbitMQ, as 4.3 (default: what bin/broker starts)")
    parser.add_argument("--seed", type=int, default=1, help="of the dice: the same faults in the same order")
    parser.add_argument("--rate", type=float, default=80.0, help="events in a second, all together (default: 80)")
    parser.add_argument("--pace", type=float, default=1.0, help="2: twice as long between two faults")
    parser.add_argument("--heartbeat", type=int, default=10, help="seconds, of all connections (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the figures")
    parser.add_argument("--folder", type=Path, help="for journals and logs (default: a new one in /tmp)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:7.1f}] {line}", file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    say(f"journals and logs are in {folder}")
    options = Options(
        seconds=arguments.minutes * 60,
        nodes=arguments.nodes,
        version=arguments.version,
        seed=arguments.seed,
        rate=arguments.rate,
        pace=arguments.pace,
        heartbeat=arguments.heartbeat,
    )
    try:
        report = soak(options, folder, say)
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return NOT_MEASURED
    except KeyboardInterrupt:
        print("not measured: interrupted", file=sys.stderr)
        return INTERRUPTED
    (folder / "faults").write_text("".join(f"{fault}\n" for fault in report.faults))
    (folder / "lost").write_text("".join(f"{line}\n" for line in lost(report)))
    (folder / "tracebacks").write_text("\n\n".join(report.findings.tracebacks))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(report), indent=1) + "\n")
    for line in text(report):
        print(line)
    if report.lost:
        print(f"what was lost: {folder / 'lost'}", file=sys.stderr)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
