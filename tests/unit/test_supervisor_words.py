"""What the supervisor says: log lines, formats, reports, notes in shared memory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.exits import Ending, ending_of
from domain_events.supervisor.lines import fields_of, to_text
from domain_events.supervisor.lock import Lock, LockTaken
from domain_events.supervisor.notes import Record, record_size
from domain_events.supervisor.notify import Notifier
from domain_events.supervisor.reports import Reporter, Reports
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.slots import Booted, Consuming, Waiting


def test_a_line_is_its_event_and_its_fields() -> None:
    text = to_text("child_exit", slot="printer#0", code=70, in_flight=None, delay=0.5, reason='said "no"')
    assert text == r'event=child_exit slot=printer#0 code=70 delay=0.5 reason="said \"no\""'


@given(st.text(), st.integers())
def test_a_line_can_be_read_again(reason: str, n: int) -> None:
    assert fields_of(to_text("stop_begin", n=n, reason=reason)) == {"event": "stop_begin", "n": n, "reason": reason}


@pytest.mark.parametrize("text", ["", "hello", "event= and more", 'event=x reason="open', "event=x words"])
def test_other_words_are_no_line(text: str) -> None:
    assert "reason" not in fields_of(text)
    assert fields_of("it was event=x") == {}


def test_reports_arrive_in_order_and_nothing_is_said_twice() -> None:
    read, write = os.pipe()
    reports, reporter = Reports(read), Reporter(write)
    assert reporter.booted()
    assert reporter.waiting("connection\nrefused")
    assert not reporter.waiting("connection refused")
    assert reporter.consuming()
    assert reports.read() == [Booted(), Waiting("connection refused"), Consuming()]
    assert not reports.ended
    os.write(write, b"nonsense\nconsum")
    assert reports.read() == []
    os.write(write, b"ing\n")
    os.close(write)
    assert reports.read() == [Consuming()]
    assert reports.ended
    reports.close()


def test_a_child_does_not_wait_for_a_master_that_does_not_read() -> None:
    read, write = os.pipe()
    reporter = Reporter(write)
    for number in range(1000):
        reporter.waiting(f"{number} {'x' * 1000}")
    os.close(read)
    reporter.consuming()
    os.close(write)


def region(size: int) -> memoryview:
    """Of shared memory."""
    arena = Arena()
    return arena.view(arena.allocate(size))


def in_hand(notes: Record) -> list[str]:
    return [event.id for event in notes.in_hand]


def test_the_notes_of_a_dead_child_are_readable() -> None:
    notes = Record(region(record_size(1)))
    pid = os.fork()
    if pid == 0:
        notes.begin("in-hand-1")
        os.kill(os.getpid(), 9)
    assert ending_of(os.waitpid(pid, 0)[1]) == Ending(signal=9)
    assert in_hand(notes) == ["in-hand-1"]


def test_an_ending_is_said_in_words() -> None:
    assert [str(ending) for ending in (Ending(code=3), Ending(signal=11), Ending(signal=40), Ending())] == [
        "exit 3",
        "SIGSEGV",
        "signal 40",
        "an unknown end",
    ]


def test_an_abstract_notify_socket_works(tmp_path: Path) -> None:
    name = f"domain-events-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"}, os.getpid())
        notifier.status("one")
        notifier.status("one")
        notifier.ready()
        assert [listener.recv(100), listener.recv(100)] == [b"STATUS=one", b"READY=1"]
        notifier.close()


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}
    assert Notifier(environ, 7).watchdog == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": "7"}, 7).watchdog == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": "8"}, 7).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "3000000"}, 7).watchdog is None
    assert Notifier({**environ, "WATCHDOG_USEC": "nonsense"}, 7).watchdog is None


def test_a_service_manager_that_is_gone_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}, 7)
    notifier.ready()
    assert "was not told READY" in caplog.text


def test_a_lock_that_was_removed_under_its_holder_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = Lock(str(path))
    with pytest.raises(LockTaken, match=f"pid {os.getpid()}"):
        Lock(str(path))
    path.unlink()
    second = Lock(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    first.close()
    second.close()
    Lock(str(path)).close()


def test_a_lock_that_takes_no_pid_is_a_lock_all_the_same() -> None:
    Lock("/dev/full").close()


@pytest.mark.parametrize("path", ["/nowhere/lock", "/proc/lock"])
def test_a_lock_that_cannot_be_made_says_why(path: str) -> None:
    with pytest.raises(LockTaken, match=f"cannot use {path}"):
        Lock(path)
