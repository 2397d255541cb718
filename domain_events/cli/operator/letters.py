"""Dead letters for people and machines: grouped, each on a line, as JSON, one in full; and how far some work is."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from domain_events.cli.operator.output import say, terminal_width
from domain_events.cli.operator.table import Column, table
from domain_events.showing import one_line, printable

if TYPE_CHECKING:
    from domain_events.transport.dead_letters.fingerprint import Fingerprint
    from domain_events.transport.dead_letters.groups import Groups
    from domain_events.transport.dead_letters.letter import Detail, Letter, Summary
    from domain_events.transport.dead_letters.queue import DeadLetterQueue
    from domain_events.transport.dead_letters.wanted import Wanted
    from domain_events.transport.dead_letters.working import Tally
    from domain_events.transport.migration.management import ListedQueue

_MANY = 20_000  # bytes of JSON in memory, before they go into a file
_EVERY = 0.5  # seconds between two words about how far it is

_GROUPS = (
    Column(title="FINGERPRINT"),
    Column(title="COUNT", right=True),
    Column(title="FIRST"),
    Column(title="LAST"),
    Column(title="ERROR", least=20),
    Column(title="THE LAST SAID", least=20),
)
_EACH = (
    Column(title="DEAD AT"),
    Column(title="ID", least=12),
    Column(title="ROUTING KEY", least=12),
    Column(title="RETRIES", right=True),
    Column(title="REASON", least=20),
)


def looked_through(queue: DeadLetterQueue, wanted: Wanted) -> Iterator[Letter]:
    """Those that are wanted; says on a terminal how far it is."""
    say_whether_locked(queue)
    with progress("looked at", queue.count) as moved:
        seen = 0
        for page in queue.pages():
            seen += len(page)
            moved.count(seen)
            yield from filter(wanted.matches, page)


def say_whether_locked(queue: DeadLetterQueue) -> None:
    if not queue.is_locked:
        say("others are not kept out, as this login may declare no queue: what they look at is not seen here")


class Progress:
    """One line on stderr that is written over and over; nothing where stderr is no terminal."""

    def __init__(self, did: str, total: int) -> None:
        """`total`: about."""
        self._did = did
        self._total = total
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()
        self._next_at = time.monotonic() + _EVERY
        self._has_shown = False

    def __call__(self, tally: Tally) -> None:
        self.count(tally.done, tally.seen)

    def count(self, done: int, seen: int | None = None) -> None:
        if not self._is_shown or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + _EVERY
        self._has_shown = True
        at = done if seen is None else seen
        share = min(1.0, at / self._total) if self._total else 1.0
        bar = "#" * round(20 * share)
        looked = "" if seen is None else f", {seen} looked at"
        sys.stderr.write(f"\r[{bar:<20}] {done} {self._did}{looked} of about {self._total}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if self._has_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(did: str, total: int) -> Iterator[Progress]:
    shown = Progress(did, total)
    try:
        yield shown
    finally:
        shown.end()


def grouped(groups: Groups) -> Iterator[str]:
    """A line for each cause."""
    rows = [
        [
            group.fingerprint.key,
            str(group.count),
            moment_text(group.first),
            moment_text(group.last),
            printable(str(group.fingerprint)),
            group.said,
        ]
        for group in groups.largest_first
    ]
    if rows:
        yield from table(_GROUPS, rows, terminal_width())
    if groups.others:
        yield f"and {groups.others} more, with other fingerprints"


class Sorted:
    """Summaries, oldest first, however many: in a file, with eight bytes of each in memory."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MANY, mode="w+b")  # noqa: SIM115  closed in __exit__
        self._times = array("d")
        self._places = array("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, summary: Summary) -> None:
        self._times.append(summary["dead_at"] or 0.0)
        self._places.append(self._file.tell())
        self._file.write(json.dumps(summary).encode("ascii") + b"\n")

    def json(self) -> Iterator[str]:
        """The lines of a list."""
        yield "["
        last = len(self._times) - 1
        for number, line in enumerate(self._in_order()):
            yield f"  {line}{'' if number == last else ','}"
        yield "]"

    def lines(self) -> Iterator[str]:
        """In pieces, each as wide as it has to be."""
        rows: list[list[str]] = []
        for line in self._in_order():
            summary: Summary = json.loads(line)
            rows.append(
                [
                    moment_text(summary["dead_at"]),
                    printable(summary["id"]),
                    printable(summary["routing_key"]),
                    str(summary["retries"]),
                    one_line(summary["reason"], 200),
                ]
            )
            if len(rows) == 1000:
                yield from table(_EACH, rows, terminal_width())
                rows = []
        if rows:
            yield from table(_EACH, rows, terminal_width())

    def _in_order(self) -> Iterator[str]:
        for number in sorted(range(len(self._times)), key=self._times.__getitem__):
            self._file.seek(self._places[number])
            yield self._file.readline().decode("ascii").rstrip("\n")


def described(detail: Detail, fingerprint: Fingerprint) -> Iterator[str]:
    """Everything of one, for a person; nothing that a sender has written can look like ours."""
    shown: Mapping[str, Any] = {
        "id": detail["id"],
        "routing key": detail["routing_key"],
        "sent at": moment_text(detail["sent_at"]),
        "dead at": moment_text(detail["dead_at"]),
        "retries": detail["retries"],
        "host": detail["host"] or "-",
        "reason": detail["reason"],
        "error": f"{detail['error_type'] or '-'}: {detail['error_message'] or '-'}",
        "fingerprint": f"{fingerprint.key} ({fingerprint})",
    }
    for name, value in shown.items():
        yield f"{name + ':':<13}{printable(str(value))}"
    yield "data:"
    text = json.dumps(detail["data"], indent=2, ensure_ascii=False)
    yield from (f"  {printable(line)}" for line in text.split("\n"))
    if detail["traceback"]:
        yield "traceback:"
        yield from (f"  {printable(line)}" for line in detail["traceback"].rstrip("\n").split("\n"))


def counts(queues: Iterable[ListedQueue]) -> Iterator[str]:
    """Of all receivers, those with the most first."""
    found = [(queue.messages, queue.name.removesuffix(":dead")) for queue in queues if queue.name.endswith(":dead")]
    if not found:
        say("there is no receiver with dead letters")
        return
    rows = [
        [printable(name), "?" if count is None else str(count)]
        for count, name in sorted(found, key=lambda each: (-(each[0] or 0), each[1]))
    ]
    yield from table((Column(title="RECEIVER", least=12), Column(title="DEAD LETTERS", right=True)), rows, None)


def moment_text(seconds: float | None) -> str:
    """As 2026-11-30 12:45:00Z. Of what is in no calendar, as anybody may send it, the seconds."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"
