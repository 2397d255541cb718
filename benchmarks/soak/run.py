"""A soak from the start of its broker to its result.

Senders write down what they are about to send and what was confirmed, handlers what they have handled. Meanwhile
lanes of faults do harm to the nodes, the wires and the processes. At the end everything is repaired, the senders stop,
the queues run empty, the supervisor stops, and what is left in the queues is read. Then the ledger must balance.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pika

from benchmarks.soak.books import Clock, read
from benchmarks.soak.faults import Happened, Lane, node_faults, process_faults, wire_faults
from benchmarks.soak.logs import Findings, kind_of, search
from benchmarks.soak.nodes import NodeError, Nodes
from benchmarks.soak.plan import FAST, kinds
from benchmarks.soak.processes import Processes
from benchmarks.soak.reckoning import CONFIRMED, Account, Gap, Note, Sent, gaps, read_notes, read_sent, reckon
from benchmarks.soak.wires import Wire
from tests.waiting import wait_until

BUSY_SENDERS = ("threads", "coroutines")
LONGEST_REPAIR = 300.0
LONGEST_WAIT = 240.0
"""Seconds for the queues to run empty."""
SLACK = 3.0
"""Seconds that a call may take longer than its timeout on a busy machine."""
STATISTICS = 6.0
"""Seconds after which rabbitmqctl knows how much there is in a quorum queue."""
QUIET = 1.5
"""Seconds without an event, after which a queue that is read holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seconds: float = 60.0
    nodes: int = 1
    version: str | None = None
    seed: int = 1
    rate: float = 80.0
    pace: float = 1.0
    """Seconds between faults, as a multiple of the usual."""
    heartbeat: int = 10
    recovery: float = 10.0
    """Seconds that senders go on when everything is repaired."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a soak has found."""

    options: Options
    accounts: list[Account]
    sent: dict[str, Sent]
    faults: list[Happened]
    problems: list[str]
    """Everything but lost events that must not be."""
    findings: Findings
    stalls: list[Gap]
    """Between two events of the fast receiver, the longest first."""
    longest_way: float
    """Seconds from the begin of a send that was confirmed to the end of its fast handler."""
    stops: dict[int, int]

    @property
    def lost(self) -> int:
        return sum(len(account.lost) for account in self.accounts)

    @property
    def is_good(self) -> bool:
        return not self.lost and not self.problems


def soak(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Raises NodeError when the broker cannot be handled; then nothing was measured.

    `folder`: for journals and logs. Everything that it starts has ended when it returns or raises.
    """
    with contextlib.ExitStack() as cleanup:
        nodes = Nodes(folder / "broker", options.version, options.nodes)
        cleanup.callback(nodes.remove)
        nodes.start()
        wires = {side: [cleanup.enter_context(_wire(url)) for url in nodes.urls] for side in ("senders", "receivers")}
        clock = Clock(time.monotonic())
        processes = Processes(
            folder,
            env={"SOAK_FOLDER": str(folder), "SOAK_BEGAN": repr(clock.began), "SOAK_NODES": str(options.nodes)},
            sender_urls=_urls(wires["senders"], options.heartbeat),
            receiver_urls=_urls(wires["receivers"], options.heartbeat),
            seed=options.seed,
            rate=options.rate,
        )
        cleanup.callback(processes.end)
        _begin(options, processes, say)
        began = clock.now()
        problems: list[str] = []
        faults = _harm(options, nodes, wires, processes, clock, say)
        say("everything is repaired")
        _go_on(options.recovery, processes)
        processes.stop_senders()
        ended = clock.now()
        left = _wait_empty(nodes, folder, problems, say)
        processes.stop_master()
        say(f"reading what is left: {left}")
        queues = _drain(nodes)
        return _report(options, folder, processes, faults, problems, queues, began, ended)


def _begin(options: Options, processes: Processes, say: Callable[[str], None]) -> None:
    children = sum(kind.processes for kind in kinds(options.nodes))
    master = processes.start_master()
    consuming = '"event": "child_consuming"'
    try:
        wait_until(lambda: master.output().count(consuming) >= children, 60.0, f"{children} children consume")
    except AssertionError as error:
        raise NodeError(f"{error}: {master.output()[-2000:]}") from None
    # A queue younger than a second may not outlive its broker (docs/decisions/0003); nobody is promised that.
    time.sleep(2.0)
    for name in BUSY_SENDERS:
        processes.start_sender(name, name, options.rate / len(BUSY_SENDERS))
    processes.start_sender("rarely", "rarely", 0.0)
    say(f"{children} children consume; {options.rate:g} events are sent in a second")


def _harm(
    options: Options,
    nodes: Nodes,
    wires: dict[str, list[Wire]],
    processes: Processes,
    clock: Clock,
    say: Callable[[str], None],
) -> list[Happened]:
    """Faults for as long as it was asked for, and their repair."""
    stop = threading.Event()
    lanes = [
        Lane(name, faults, seed=options.seed, pause=pause * options.pace, clock=clock, stop=stop, say=say)
        for name, pause, faults in (
            ("nodes", 12.0, node_faults(nodes)),
            ("wires", 8.0, wire_faults(wires)),
            ("processes", 6.0, process_faults(processes)),
        )
    ]
    end = clock.now() + options.seconds
    try:
        for lane in lanes:
            lane.start()
        while clock.now() < end and not any(lane.problem for lane in lanes):
            _go_on(min(1.0, max(0.0, end - clock.now())), processes)
    finally:
        stop.set()
        for lane in lanes:
            lane.join(LONGEST_REPAIR)
    if problems := [lane.problem for lane in lanes if lane.problem]:
        raise NodeError("; ".join(problems))
    return sorted((each for lane in lanes for each in lane.happened), key=lambda each: each.began)


def _go_on(seconds: float, processes: Processes) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        processes.look_after()


def _wait_empty(nodes: Nodes, folder: Path, problems: list[str], say: Callable[[str], None]) -> dict[str, int]:
    """Until nothing waits to be handled, and nothing was handled for a while. What still waits then."""
    end = time.monotonic() + LONGEST_WAIT
    busy, noted = time.monotonic(), -1
    while True:
        waiting = {name: n for name, n in nodes.queues().items() if n and not name.endswith(":dead")}
        before, noted = noted, sum(path.stat().st_size for path in folder.glob("handled.*"))
        now = time.monotonic()
        if waiting or before != noted:
            busy = now
        elif now - busy > STATISTICS:
            return {}
        if now > end:
            problems.append(f"not empty {LONGEST_WAIT:g} s after the last event: {waiting}")
            return waiting
        say(f"waiting for {sum(waiting.values())} events in {len(waiting)} queues")
        time.sleep(2.0)


def _drain(nodes: Nodes) -> dict[str, list[str]]:
    """The ids of the events in each queue; takes them out."""
    found: dict[str, list[str]] = {name: [] for name in nodes.queues()}
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(nodes.urls[0]))) as connection:
        channel = connection.channel()
        for name, events in found.items():

            def take(_: object, __: object, ___: object, body: bytes, events: list[str] = events) -> None:
                events.append(json.loads(body)["uuid_string"])

            # Not basic.get: queues with a single active consumer refuse it.
            channel.basic_consume(name, take, auto_ack=True)
        count = -1
        while count != (count := sum(map(len, found.values()))):
            quiet = time.monotonic() + QUIET
            while time.monotonic() < quiet:
                connection.process_data_events(0.1)
    return found


def _report(
    options: Options,
    folder: Path,
    processes: Processes,
    faults: list[Happened],
    problems: list[str],
    queues: dict[str, list[str]],
    began: float,
    ended: float,
) -> Report:
    sent, notes = read_sent(read(folder, "sent.*")), read_notes(read(folder, "handled.*"))
    accounts = []
    for kind in kinds(options.nodes):
        dead = queues.get(f"{kind.queue}:dead")
        retries = [name for name in queues if name.startswith(f"{kind.queue}:retry:")]
        if kind.queue not in queues or dead is None:
            problems.append(f"the queue {kind.queue} or its dead letters are gone")
        left = [event for name in (kind.queue, *retries) for event in queues.get(name, [])]
        accounts.append(reckon(kind.name, kind.topics, sent, notes.get(kind.name, []), dead or [], left))
    findings = Findings()
    for log in (*folder.glob("supervisor-*.log"), *folder.glob("sender-*.log")):
        found = search(log.read_text(errors="replace").splitlines())
        findings.errors += found.errors
        findings.tracebacks += [f"{log.name}: {text}" for text in found.tracebacks]
    fast = notes.get(FAST, [])
    confirmed = {name: each.began for name, each in sent.items() if each.outcome == CONFIRMED}
    ways = [note.at - confirmed[note.name] for note in _first(fast) if note.name in confirmed]
    return Report(
        options=options,
        accounts=accounts,
        sent=sent,
        faults=faults,
        problems=[*problems, *processes.problems, *_broken(accounts, sent, findings)],
        findings=findings,
        stalls=gaps((note.at for note in fast), began, ended),
        longest_way=max(ways, default=0.0),
        stops=dict(processes.stops),
    )


def _broken(accounts: Sequence[Account], sent: dict[str, Sent], findings: Findings) -> Iterator[str]:
    """What must not be, but for lost events."""
    for account in accounts:
        if account.strangers:
            yield f"{account.receiver}: {len(account.strangers)} events that nobody has sent: {account.strangers[:5]}"
        if account.ghosts:
            yield f"{account.receiver}: {len(account.ghosts)} have arrived, said to be not sent: {account.ghosts[:5]}"
    for each in sent.values():
        if each.seconds is not None and each.seconds > each.timeout + SLACK:
            yield f"{each.name} took {each.seconds:.1f} s, its timeout was {each.timeout:g} s ({each.error})"
    for last_line, n in Counter(kind_of(text.strip().splitlines()[-1]) for text in findings.tracebacks).items():
        yield f"{n} tracebacks of {last_line}"


def _first(notes: Sequence[Note]) -> Iterable[Note]:
    """Of each event the first."""
    return {note.name: note for note in sorted(notes, key=lambda note: note.at, reverse=True)}.values()


def _urls(wires: Sequence[Wire], heartbeat: int) -> str:
    return ",".join(f"{wire.url}?heartbeat={heartbeat}" for wire in wires)


@contextlib.contextmanager
def _wire(url: str) -> Iterator[Wire]:
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.close()
