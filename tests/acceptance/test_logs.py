"""Logs of the real command: handlers that flood, files that rotate, and a reload in between."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from domain_events import send_domain_event, send_domain_events
from tests.acceptance.service import COMMAND
from tests.brokers import Broker, Queues
from tests.growing import whole_lines
from tests.processes import Handle, Processes
from tests.waiting import wait_until

EVENTS, LINES = 40, 400
WRITTEN = re.compile(r"(?P<by>\d+) (?P<writer>\d+) (?P<words>.*)")

DROPPED = re.compile(r'"message": "event=log_records_dropped [^"]* n=(\d+)"')


def lines_of(folder: Path, name: str) -> list[dict[str, str]]:
    """All that is in this file and what was rotated out of it; every line is whole."""
    found = []
    for path in folder.glob(f"{name}*"):
        for text in path.read_text().splitlines():
            match = WRITTEN.fullmatch(text)
            assert match, f"{path}: {text!r}"
            found.append(match.groupdict())
    return found


def objects(handle: Handle) -> list[dict[str, Any]]:
    return [json.loads(text) for text in handle.output().splitlines()]


def test_rotating_files_stay_whole_and_a_flood_delays_nobody_also_after_a_reload(
    processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path
) -> None:
    """Nobody reads while all events are handled: a log call that waited would wait for ever."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "done").touch()
    for name in ("loud", "quiet"):
        queues.forget_after(f"{unique}{name}")
    env = {"DOMAIN_EVENT_BROKER": broker.url, "TEST_PREFIX": unique, "TEST_FOLDER": str(folder)}
    handle = processes.start(
        [sys.executable, COMMAND, "tests.acceptance.log_receivers", "--log-format", "json"], env=env
    )

    def done() -> set[int]:
        return {int(line) for line in whole_lines(folder / "done")}

    def accounted() -> int:
        """Records that are written or said to be dropped."""
        written = 0
        for path in [*folder.glob("size*"), *folder.glob("time*")]:
            with contextlib.suppress(FileNotFoundError):  # it is rotated just now
                written += path.read_text().count(" loud ")
        return written + sum(int(n) for n in DROPPED.findall(handle.output()))

    def flood(first: int) -> None:
        numbers = range(first, first + EVENTS)
        handle.send(signal.SIGSTOP)
        send_domain_events(
            [(f"{unique}.loud.asked", {"n": n, "lines": LINES}) for n in numbers], connection_settings=broker.url
        )
        for n in range(first, first + 20):
            send_domain_event(f"{unique}.quiet.asked", {"n": n}, connection_settings=broker.url)
        wait_until(lambda: set(numbers) <= done(), what="all events handled", pause=0.2)
        queues.wait_count(f"{unique}quiet", 0)
        handle.send(signal.SIGCONT)
        floods.append(first)
        records = len(floods) * 2 * EVENTS * LINES
        wait_until(lambda: accounted() == records, what=f"{records} records in files or dropped", pause=0.2)

    floods: list[int] = []
    wait_until(lambda: handle.output().count('"child_consuming"') == 5, what="all consume")
    flood(0)
    handle.send(signal.SIGHUP)
    handle.wait_output('"reload_ok"')
    flood(1000)
    handle.terminate()
    assert handle.wait() == 0
    assert handle.group() == []

    said = objects(handle)
    dropped = [line for line in said if line.get("event") == "log_records_dropped"]
    assert {line["receiver"] for line in dropped} == {f"{unique}loud"}
    assert all(line["slot"].startswith(f"{unique}loud#") and line["pid"] for line in dropped)
    files = {name: lines_of(folder, name) for name in ("size", "time")}
    assert all(len(list(folder.glob(f"{name}.*"))) > 1 for name in files), "they have rotated"
    assert {line["writer"] for found in files.values() for line in found} == {str(handle.pid)}
    loud = {
        name: Counter(line["words"] for line in found if line["words"].startswith("loud"))
        for name, found in files.items()
    }
    assert all(set(counts.values()) == {1} for counts in loud.values())
    # Each of these lines is for two loggers, and they are dropped one by one.
    assert sum(map(len, loud.values())) + sum(line["n"] for line in dropped) == 2 * 2 * EVENTS * LINES
    assert loud["size"].keys() == {line["message"] for line in said if line["message"].startswith("loud")}

    quiet = [line for line in files["size"] if line["words"].startswith("quiet")]
    assert (len(done()), len(quiet)) == (2 * EVENTS, 40)
