"""A receiver on a machine that is short of memory: whoever takes too much is killed, as the kernel does it."""

import os
import subprocess
import sys

from domain_events import DomainEvent, Receiver, child_started

PREFIX = os.environ["TEST_PREFIX"]
MOST = 300 * 1024  # KiB

KILLER = """
import os, sys, time
pid, most = map(int, sys.argv[1:])
while True:
    try:
        with open(f"/proc/{pid}/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:
        break
    if pages * 4 > most:
        os.kill(pid, 9)
    time.sleep(0.002)
"""

receiver = Receiver()


@child_started
def be_watched() -> None:
    subprocess.Popen([sys.executable, "-S", "-c", KILLER, str(os.getpid()), str(MOST)])


@receiver.handles(f"{PREFIX}work", f"{PREFIX}.work.#")
def work(event: DomainEvent) -> None:
    print(f"handled {event.data}", flush=True)
