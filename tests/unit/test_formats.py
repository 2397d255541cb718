"""How log lines look: text, JSON, and what the journal gets."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from domain_events.supervisor.formats import JournalFormatter, JsonFormatter, TextFormatter, is_the_journal
from domain_events.supervisor.lines import dropped, to_text

LOG_FIELDS = {  # those of the contract
    "event": "child_exit",
    "receiver": "sync data",
    "slot": "sync data#0",
    "pid": 4711,
    "signal": "SIGKILL",
    "code": 70,
    "in_flight": 'id "1"=2\n',
    "n": 3,
    "delay": 0.25,
    "reason": "it was\nso",
}


def record(message: object, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("domain_events.supervisor", level, __file__, 1, message, args, None)
    vars(made).update(extra)
    return made


def from_json(text: str) -> dict[str, object]:
    """Strictly: NaN is no JSON."""

    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} in {text}")

    line = json.loads(text, parse_constant=refuse)
    assert isinstance(line, dict)
    assert "\n" not in text
    text.encode()
    return line


# JSON


def test_every_field_of_the_contract_is_a_key_with_its_type() -> None:
    event, *fields = LOG_FIELDS.items()
    line = from_json(JsonFormatter().format(record("%s", to_text(str(event[1]), **dict(fields)))))  # type: ignore[arg-type]
    assert LOG_FIELDS.items() <= line.items()
    assert (line["level"], line["logger"], line["process"]) == ("INFO", "domain_events.supervisor", os.getpid())
    assert abs(datetime.fromisoformat(str(line["time"])).timestamp() - datetime.now().timestamp()) < 60


def test_dropped_records_name_receiver_slot_and_process() -> None:
    line = from_json(JsonFormatter().format(record("%s", dropped("a#b#12", 7, 4711))))
    assert (line["event"], line["receiver"], line["slot"]) == ("log_records_dropped", "a#b", "a#b#12")
    assert (line["n"], line["pid"]) == (7, 4711)
    assert dropped("master", 7, None) == "event=log_records_dropped slot=master n=7"


def test_lines_of_other_loggers_are_taken_as_words() -> None:
    made = record("event=child_exit n=1")
    made.name = "app"
    assert "event" not in from_json(JsonFormatter().format(made))


def test_json_holds_whatever_a_caller_adds() -> None:
    class Stubborn:
        def __str__(self) -> str:
            raise RuntimeError

    circle: dict[str, object] = {}
    circle["circle"] = circle
    made = record("hello", nan=float("nan"), deep={"inf": [float("-inf")]}, circle=circle, stubborn=Stubborn())
    vars(made)[7] = "no name"  # type: ignore[index]
    line = from_json(JsonFormatter().format(made))
    assert (line["nan"], line["deep"]) == ("NaN", {"inf": ["-Infinity"]})
    assert line["stubborn"] == "<Stubborn, whose str() raised RuntimeError>"
    assert "circle" in line


def test_json_is_a_line_even_when_the_message_does_not_fit_its_arguments() -> None:
    line = from_json(JsonFormatter().format(record("%d and %d", "x")))
    assert line["message"] == "'%d and %d' with arguments ('x',) (not formatted: TypeError)"


def test_json_keeps_exception_and_stack_in_the_line() -> None:
    made = record("two\nlines \udc80\0", stack_info="Stack (most recent call last):\n  here")
    try:
        raise ValueError("no\nway")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    line = from_json(JsonFormatter().format(made))
    assert line["message"] == "two\nlines \udc80\0"
    assert "no\nway" in str(line["exception"])
    assert str(line["stack"]).endswith("here")


# Text

HOSTILE = "one\n2026-01-01 00:00:00,000 CRITICAL 1 root forged\r\x1b[2J\x9b1m\0\x7f\u2028\u202e\ud800\ttwo"


def forged(level: int = logging.ERROR) -> logging.LogRecord:
    """A record whose message, exception, stack and name somebody else has chosen."""
    made = record("%s", HOSTILE, level=level, stack_info=f"Stack:\n  {HOSTILE}")
    made.name = f"app{HOSTILE}"
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        error.add_note(HOSTILE)
        made.exc_info = (ValueError, error, error.__traceback__)
    return made


def test_only_a_record_begins_at_the_margin_and_nothing_in_it_moves_a_cursor() -> None:
    lines = TextFormatter("%(levelname)s %(name)s %(message)s").format(forged()).split("\n")
    assert lines[0].startswith("ERROR appone")
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert lines.count("    Traceback (most recent call last):") == 1
    escaped = r"forged\r\x1b[2J\x9b1m\x00\x7f\u2028\u202e\ud800" + "\ttwo"
    assert sum(line.endswith(escaped) for line in lines) >= 4


def test_json_and_the_journal_are_proof_against_the_same() -> None:
    assert "forged" in str(from_json(JsonFormatter().format(forged()))["message"])
    assert JsonFormatter().format(forged()).isascii()
    for inner in (TextFormatter("%(message)s"), JsonFormatter()):
        lines = JournalFormatter(inner).format(forged()).split("\n")
        assert all(line.startswith(("<3>one", "<3>    ", "<3>{")) for line in lines)
        assert all(line.replace("\t", "").isprintable() for line in lines)


def test_a_field_cannot_become_two_nor_end_its_line() -> None:
    text = to_text("child_exit", reason=HOSTILE, in_flight='a" pid=1 event=forged', slot="a\u202eb#0")
    assert text.isprintable()
    line = from_json(JsonFormatter().format(record("%s", text)))
    assert (line["reason"], line["in_flight"], line["slot"]) == (HOSTILE, 'a" pid=1 event=forged', "a\u202eb#0")
    assert (line["event"], line.get("pid")) == ("child_exit", None)


# The journal


@pytest.mark.parametrize(
    ("level", "priority"),
    [(5, 7), (10, 7), (15, 7), (20, 6), (25, 6), (30, 4), (40, 3), (50, 2), (60, 2)],
)
def test_the_journal_gets_the_priority_of_sd_daemon(level: int, priority: int) -> None:
    text = JournalFormatter(logging.Formatter("%(message)s")).format(record("words", level=level))
    assert text == f"<{priority}>words"


def test_every_line_of_a_record_carries_the_priority_and_none_can_forge_it() -> None:
    made = record("first\n<7>second\0third", level=logging.ERROR)
    try:
        raise ValueError("no way")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    lines = JournalFormatter(logging.Formatter("%(message)s")).format(made).split("\n")
    assert lines[:4] == ["<3>first", "<3><7>second", "<3>third", "<3>Traceback (most recent call last):"]
    assert {line[:3] for line in lines} == {"<3>"}


@pytest.fixture
def stream() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def named(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


def test_only_the_very_stream_that_systemd_names_is_the_journal(stream: tuple[socket.socket, socket.socket]) -> None:
    here, there = (end.fileno() for end in stream)
    assert is_the_journal(here, {"JOURNAL_STREAM": named(here)})
    assert not is_the_journal(here, {"JOURNAL_STREAM": named(there)})
    assert not is_the_journal(here, {"JOURNAL_STREAM": ""})
    assert not is_the_journal(here, {})
    closed = os.dup(here)
    os.close(closed)
    assert not is_the_journal(closed, {"JOURNAL_STREAM": named(here)})


PROGRAM = """
import logging, sys
from domain_events.supervisor.formats import configure
configure("INFO", sys.argv[1])
logging.getLogger("app").warning("two\\nlines")
"""


def written(form: str, stderr: int, journal: str | None, read: socket.socket) -> str:
    """What a process that configures its logs writes to this stderr."""
    env = {**os.environ, **({"JOURNAL_STREAM": journal} if journal else {})}
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], stderr=stderr, env=env, timeout=30, check=True)
    assert done.returncode == 0
    return read.recv(10_000).decode()


def test_text_has_no_second_time_in_the_journal(stream: tuple[socket.socket, socket.socket]) -> None:
    here, there = stream
    text = written("text", there.fileno(), named(there.fileno()), here)
    assert text.startswith("<4>WARNING ")
    assert text.endswith(" app two\n<4>    lines\n")
    text = written("text", there.fileno(), None, here)
    assert text[:2] == "20"
    assert text.endswith(" app two\n    lines\n")
    text = written("text", there.fileno(), named(here.fileno()), here)  # stderr was redirected
    assert text[:2] == "20"


def test_json_in_the_journal_is_json_behind_the_priority(stream: tuple[socket.socket, socket.socket]) -> None:
    here, there = stream
    text = written("json", there.fileno(), named(there.fileno()), here)
    assert text.startswith("<4>{")
    assert from_json(text.removeprefix("<4>").rstrip("\n"))["message"] == "two\nlines"


def test_a_pipe_may_be_the_journal_too(tmp_path: Path) -> None:
    read, write = os.pipe()
    assert is_the_journal(write, {"JOURNAL_STREAM": named(write)})
    os.close(read)
    os.close(write)
