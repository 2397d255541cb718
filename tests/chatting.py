"""`tests.supervising` with children that log: `python -m tests.chatting a=flood b=last_words`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time

from domain_events.observers import Observer
from domain_events.oversight import Oversight
from domain_events.stopping import Stop
from domain_events.supervisor.leaving import leave
from tests import supervising

log = logging.getLogger("app.handlers")
CRASHES = 200


def flood(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Logs as fast as it can, and says how much it has been: every 10 000 records, and at the end."""
    observer.consuming()
    n = 0
    while not stop.requested:
        log.info("flood %d", n)
        n += 1
        if n % 100 == 0:
            stop.read_signals()
        if n % 10_000 == 0:
            _say(n)
    _say(n)


def _say(flooded: int) -> None:
    # Not a record: it could be dropped.
    os.write(1, f'\n{{"flooded": {flooded}}}\n'.encode())


def quiet(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """A line every 50 ms, with the time."""
    observer.consuming()
    n = 0
    while not stop.requested:
        log.info("quiet %d", n)
        n += 1
        time.sleep(0.05)
        stop.read_signals()


def last_words(stop: Stop, observer: Observer, oversight: Oversight) -> None:
    """Logs from several threads, and dies in one of several ways; all receivers together CRASHES times, then they stay.

    Without TEST_CRASHES, a file for the count, for ever.
    """
    observer.consuming()
    threads = [threading.Thread(target=_chat, args=(name,), daemon=True) for name in range(2)]
    for thread in threads:
        thread.start()
    for n in range(20):
        log.info("word %d", n)
    for thread in threads:
        thread.join()
    log.info("last word")
    if not _may_crash():
        supervising.watch(stop, oversight.forced)
        return
    match os.getpid() % 3:
        case 0:
            raise RuntimeError("crashed as asked")
        case 1:
            os._exit(3)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


def _may_crash() -> bool:
    if "TEST_CRASHES" not in os.environ:
        return True
    file = os.open(os.environ["TEST_CRASHES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"x")
    number = os.lseek(file, 0, os.SEEK_CUR)  # after our own one, whoever writes at the same time
    os.close(file)
    return number <= CRASHES


def _chat(name: int) -> None:
    for n in range(20):
        log.info("chat %d %d", name, n)


class Slow(logging.Handler):
    """Takes 20 ms for each record, as a disk may."""

    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(0.02)
        os.write(1, f"{json.dumps({'slowly': record.getMessage()})}\n".encode())


if "TEST_SLOW_SINK" in os.environ:
    logging.getLogger("app").addHandler(Slow())
    logging.getLogger("app").propagate = False  # each record has this one way

for behaviour in (flood, quiet, last_words):
    supervising.BEHAVIOURS[behaviour.__name__] = behaviour

if __name__ == "__main__":
    # As the real command does.
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.dup(fd)
    os.close(fd)
    sys.exit(leave(supervising.main()))
