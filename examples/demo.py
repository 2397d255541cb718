"""The whole main job on one screen: a sender, the supervisor, three receivers, retries and dead letters.

Started by bin/demo, which provides the broker (AMQP_URL). --once sends a few orders, waits until all of them are
settled and exits 0 only if every single one is where it belongs.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pika

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from domain_events import send_domain_event  # noqa: E402
from examples.shop.receivers import receiver  # noqa: E402

RECEIVERS = ("confirmation-mail", "parcel-label", "loyalty-points")
RETRY_QUEUES = ("parcel-label:retry:200", "parcel-label:retry:1000", "parcel-label:retry:5000")
ORDERS = 5
DEADLINE = 120.0  # seconds for --once


class Ledger:
    """Reads what the handlers noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handled: Counter[str] = Counter()
        self._read = 0

    def show_news(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                note = json.loads(line)
                self.handled[note["receiver"]] += note["what"] == "handled"
                say(f"{note['receiver']:<18} order {note['order']:>3}   {note['what']}", note["at"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/demo", description="Domain events at work; Ctrl-C drains and counts.")
    parser.add_argument("--once", action="store_true", help=f"send {ORDERS} orders, wait for all of them, count, exit")
    options = parser.parse_args()

    broker = os.environ["AMQP_URL"]
    with tempfile.TemporaryDirectory(prefix="domain-events-demo-") as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        ledger.path.touch(mode=0o600)
        log = Path(folder) / "supervisor.log"
        os.environ.update(DOMAIN_EVENT_BROKER=broker, SHOP_LEDGER=str(ledger.path))

        say("starting the supervisor: domain-events-supervisor examples.shop.receivers")
        with log.open("wb") as sink:
            supervisor = subprocess.Popen(
                [sys.executable, ROOT / "bin" / "domain-events-supervisor", "examples.shop.receivers"],
                cwd=ROOT,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is for the demo, which then asks the supervisor to drain
            )
        try:
            sent = run(options.once, supervisor, ledger)
        finally:
            exit_code = drain(supervisor)
        ledger.show_news()
        ok = count(sent, ledger.handled)
        if exit_code or not ok:
            print(f"\nthe supervisor's log (exit code {exit_code}):\n{log.read_text()}", file=sys.stderr)
        return 0 if ok and not exit_code else 1


def run(once: bool, supervisor: "subprocess.Popen[bytes]", ledger: Ledger) -> int:
    """Send orders, show what happens; returns how many were sent."""
    sent = 0
    began = next_order = time.monotonic()
    try:
        # The queues must be there before the first order; those who come later get what is sent from then on.
        receiver.declare()
        for number in itertools.count(1):
            if once and number > ORDERS:
                break
            send_domain_event("order.placed", {"customer_id": 1000 + number}, domain_object_id=str(number))
            sent = number
            say(f"{'sent':<18} order {number:>3}   order.placed")
            next_order += 0.3 if once else 2.0
            while time.monotonic() < next_order:
                ledger.show_news()
                time.sleep(0.05)
        while ledger.handled.total() < 2 * sent or dead_letters() < sent:
            ledger.show_news()
            if time.monotonic() - began > DEADLINE or supervisor.poll() is not None:
                say("not everything was settled in time")
                break
            time.sleep(0.1)
    except KeyboardInterrupt:
        print()
    return sent


def drain(supervisor: "subprocess.Popen[bytes]") -> int:
    say("draining: SIGTERM to the supervisor")
    supervisor.send_signal(signal.SIGTERM)
    code = supervisor.wait(timeout=60)
    say(f"the supervisor has ended with exit code {code}")
    return code


def count(sent: int, handled: Counter[str]) -> bool:
    """Every order must be handled, waiting or dead-lettered, once for each receiver."""
    deadline = time.monotonic() + 10.0  # a quorum queue tells its length a little late
    while True:
        rows = {name: (handled[name], *left_in_queues(name)) for name in RECEIVERS}
        ok = all(sum(row) == sent for row in rows.values())
        if ok or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    titles = ("sent", "= handled", "+ queued", "+ waiting for retry", "+ dead letters")
    print(f"\n{'receiver':<18}", *(f"{title:>{len(title)}}" for title in titles))
    for name, row in rows.items():
        cells = (f"{number:>{len(title)}}" for number, title in zip((sent, *row), titles, strict=True))
        print(f"{name:<18}", *cells, " ok" if sum(row) == sent else " WRONG")
    return ok


def left_in_queues(receiver_name: str) -> tuple[int, int, int]:
    waiting = sum(ready(queue) or 0 for queue in RETRY_QUEUES if queue.startswith(receiver_name))
    return ready(receiver_name) or 0, waiting, ready(f"{receiver_name}:dead") or 0


def dead_letters() -> int:
    return ready("loyalty-points:dead") or 0


def ready(queue: str) -> int | None:
    """How many events are in `queue`; None when it does not exist."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    try:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
    except pika.exceptions.ChannelClosedByBroker:
        return None
    finally:
        connection.close()


def say(text: str, at: float | None = None) -> None:
    print(time.strftime("%H:%M:%S", time.localtime(at)), text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
