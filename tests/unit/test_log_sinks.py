"""Handlers of all loggers: in a child they have stand-ins, and the master alone writes."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler
from pathlib import Path

import pytest

from domain_events.supervisor.forwarder import Forwarder
from domain_events.supervisor.logs import LogLine, sink_names
from domain_events.supervisor.turns import Turns
from tests.forking import (
    PATIENCE,
    Sink,
    fork,
    fork_child,
    log,
    only_sink,
    open_descriptors,
    run_child,
    status_of,
    wait_for,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

audit = logging.getLogger("app.audit")
job: ContextVar[str] = ContextVar("job", default="nobody's")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with only_sink() as sink:
        yield sink


@contextmanager
def handlers_of(logger: logging.Logger, *handlers: logging.Handler, propagate: bool = True) -> Iterator[None]:
    before, propagated = logger.handlers[:], logger.propagate
    logger.handlers[:] = handlers
    logger.propagate = propagate
    try:
        yield
    finally:
        logger.handlers[:] = before
        logger.propagate = propagated


# Whose record it is


def test_the_handlers_of_each_logger_write_in_the_master(sink: Sink) -> None:
    own, other = Sink(), Sink()
    with handlers_of(audit, own), handlers_of(logging.getLogger("app"), other):

        def body() -> None:
            audit.info("for all three")
            log.info("for two")
            logging.getLogger("elsewhere").info("for one")

        run_child(body)
    assert own.messages("app.audit") == ["for all three"]
    assert [record.getMessage() for record in other.records] == ["for all three", "for two"]
    assert [record.getMessage() for record in sink.records] == ["for all three", "for two", "for one"]


def test_what_a_logger_keeps_for_itself_stays_with_its_handlers(sink: Sink) -> None:
    with handlers_of(audit, own := Sink(), propagate=False):
        run_child(lambda: audit.info("mine"))
    assert own.messages("app.audit") == ["mine"]
    assert sink.records == []


def test_levels_and_filters_of_single_handlers_are_respected(sink: Sink) -> None:
    errors, even = Sink(logging.ERROR), Sink()
    even.addFilter(lambda record: record.args[0] % 2 == 0)  # type: ignore[index, operator, return-value]
    with handlers_of(audit, errors, even):

        def body() -> None:
            for n in range(4):
                audit.log(logging.ERROR if n == 3 else logging.INFO, "%d", n)

        run_child(body)
    assert errors.messages("app.audit") == ["3"]
    assert even.messages("app.audit") == ["0", "2"]
    assert sink.messages("app.audit") == ["0", "1", "2", "3"]


def test_a_null_handler_is_left_alone(sink: Sink) -> None:
    null = logging.NullHandler()
    with handlers_of(audit, null):

        def body() -> None:
            assert audit.handlers == [null]
            audit.info("once")

        run_child(body)
    assert sink.messages("app.audit") == ["once"]


def test_filters_see_the_record_itself_in_its_own_context(sink: Sink) -> None:
    seen = Sink()

    def with_job(record: logging.LogRecord) -> bool:
        vars(record)["job"] = job.get()
        return record.exc_info is None or record.exc_info[0] is not KeyError

    seen.addFilter(with_job)
    with handlers_of(audit, seen):

        def body() -> None:
            job.set("invoice 7")
            audit.info("begun")
            for error in KeyError("not wanted"), ValueError("wanted"):
                try:
                    raise error
                except LookupError:
                    audit.exception("left out")
                except ValueError:
                    audit.exception("kept")

        run_child(body)
    assert [(record.getMessage(), vars(record)["job"]) for record in seen.records] == [
        ("begun", "invoice 7"),
        ("kept", "invoice 7"),
    ]


def test_a_record_that_a_filter_replaces_is_for_its_own_handler_only(sink: Sink) -> None:
    def shout(record: logging.LogRecord) -> logging.LogRecord:
        return logging.makeLogRecord({**vars(record), "msg": record.getMessage().upper(), "args": None})

    loud = Sink()
    loud.addFilter(shout)  # type: ignore[arg-type]
    logging.getLogger().handlers.append(loud)
    run_child(lambda: log.info("hear %s", "hear"))
    assert sink.messages() == ["hear hear"]
    expected = "HEAR HEAR" if sys.version_info >= (3, 12) else "hear hear"
    assert loud.messages() == [expected]


def test_a_filter_that_fails_says_so_and_holds_nobody_up(sink: Sink) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise ValueError("broken filter")

    filtered = Sink()
    filtered.addFilter(broken)
    logging.getLogger().handlers.insert(0, filtered)
    run_child(lambda: log.info("a secret"))
    assert sink.messages() == ["a secret"]
    [said] = filtered.records
    assert said.getMessage() == "a filter has failed, and a record of app.handlers is lost"
    assert "ValueError: broken filter" in (said.exc_text or "")


def test_a_handler_with_its_own_idea_of_handling_is_asked(sink: Sink) -> None:
    class Own(Sink):
        def handle(self, record: logging.LogRecord) -> bool:
            self.records.append(record)
            return True

        def emit(self, record: logging.LogRecord) -> None:
            raise AssertionError("not this way")

    logging.getLogger().handlers.append(own := Own())
    run_child(lambda: log.info("hello"))
    assert own.messages() == sink.messages() == ["hello"]


def test_without_any_handler_warnings_are_written_by_the_last_resort_of_the_master(
    sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().handlers.clear()
    with handlers_of(audit, own := Sink()):

        def body() -> None:
            log.info("nothing")
            log.warning("something")
            audit.warning("audited")

        run_child(body)
    assert capsys.readouterr().err == "something\n"
    assert own.messages("app.audit") == ["audited"]


# Files


def lines_of(folder: Path, name: str) -> list[str]:
    return [line for path in sorted(folder.glob(f"{name}*")) for line in path.read_text().splitlines()]


def test_rotating_files_stay_whole_while_eight_children_flood_them(sink: Sink, tmp_path: Path) -> None:
    children, each = 8, 600
    by_size = RotatingFileHandler(tmp_path / "size", maxBytes=20_000, backupCount=500)
    by_time = TimedRotatingFileHandler(tmp_path / "time", when="S", backupCount=500)
    form = logging.Formatter("%(process)d %(message)s")
    by_size.setFormatter(form)
    by_time.setFormatter(form)
    logging.getLogger().handlers += [by_size]

    def flood() -> None:
        for n in range(each):
            audit.info("%d %s", n, "x" * (n % 50))

    with handlers_of(audit, by_time):
        lines = [LogLine(f"flood#{n}") for n in range(children)]
        pids = [fork_child(line, flood) for line in lines]
        for pid, line in zip(pids, lines, strict=True):
            assert status_of(pid) == 0
            line.close_in_master(PATIENCE)
    dropped = sum(sink.dropped())
    by_size.close()
    by_time.close()
    found = {name: lines_of(tmp_path, name) for name in ("size", "time")}
    assert len(list(tmp_path.glob("size.*"))) > 5
    for name in ("size", "time"):
        whole = [match for line in found[name] if (match := re.fullmatch(r"(\d+) (\d+) (x*)", line))]
        reports = sum("log_records_dropped" in line for line in found[name])
        assert len(whole) + reports == len(found[name])
        assert all(len(match[3]) == int(match[2]) % 50 for match in whole)
        assert {int(match[1]) for match in whole} == set(pids)
        assert max(Counter(match[0] for match in whole).values()) == 1
    written = sum(len(found[name]) - sum("log_records_dropped" in line for line in found[name]) for name in found)
    # Each record is for two loggers, and they are dropped one by one.
    assert written + dropped == 2 * children * each


# One that floods


def test_a_child_that_floods_a_slow_sink_neither_waits_nor_keeps_others_from_it(sink: Sink) -> None:
    slowness = 0.005
    arrived: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(slowness)
            arrived.append(record.getMessage())

    logging.getLogger().handlers.append(Slow())
    flooding, waits, steps = os.pipe(), os.pipe(), 30

    def flood() -> None:
        n = 0
        os.close(waits[1])
        while not select.select([waits[0]], [], [], 0)[0]:
            log.info("flood %d", n)
            n += 1
        os.write(flooding[1], str(n).encode())

    def steady() -> None:
        for n in range(steps):
            log.info("steady %d", n)
            time.sleep(0.02)

    loud, quiet = LogLine("loud#0", bound=200), LogLine("quiet#0")
    loud_pid = fork_child(loud, flood, timeout=PATIENCE)
    os.close(waits[0])
    quiet_pid = fork_child(quiet, steady)
    assert status_of(quiet_pid) == 0
    quiet.close_in_master(PATIENCE)
    # While the flood goes on: none of them was behind it.
    assert [message for message in arrived if message.startswith("steady")] == [f"steady {n}" for n in range(steps)]
    os.close(waits[1])
    logged = os.read(flooding[0], 100)
    assert status_of(loud_pid) == 0
    loud.close_in_master(PATIENCE)
    for fd in flooding:
        os.close(fd)
    got = sum(message.startswith("flood") for message in arrived)
    assert got + sum(sink.dropped()) == int(logged)
    assert sink.dropped(), "it has waited"


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order = Turns(), []

    def take(n: int) -> None:
        with turns:
            order.append(n)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(20)]
    with turns:
        for n, thread in enumerate(threads, 1):
            thread.start()
            wait_for(lambda n=n: len(turns._waiting) == n, "the thread to ask")  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == list(range(20))
    with turns:
        pass


# Children that another process forks


def load(loader: Callable[[LogLine], object]) -> LogLine:
    """Another process than the master gets the writing end over a socket, makes its half of it, and does `loader`."""
    names = sink_names()
    here, there = socket.socketpair()
    line = LogLine("a#0")

    def live() -> None:
        line.discard()
        _, [fd], _, _ = socket.recv_fds(there, 10, 1)
        loader(LogLine.from_writer("a#0", fd, names))

    pid = fork(live)
    socket.send_fds(here, [b"writer"], [line.writer_fd])
    line.in_master()
    assert status_of(pid) == 0
    here.close()
    there.close()
    return line


def child_of_loader(line: LogLine, body: Callable[[], object]) -> None:
    """Forks; what the loader itself has of the line is gone afterwards."""

    def live() -> None:
        line.in_child()
        body()
        line.close_in_child(PATIENCE)

    before = open_descriptors()
    pid = fork(live)
    line.discard()
    assert open_descriptors() == before - 1
    assert status_of(pid) == 0


def test_a_child_of_another_process_logs_to_the_master(sink: Sink) -> None:
    def body() -> None:
        log.info("hello from %s", "there")
        audit.info("audited")

    before = open_descriptors()
    with handlers_of(audit, own := Sink()):
        line = load(partial(child_of_loader, body=body))
        line.close_in_master(PATIENCE)
    assert sink.messages() == ["hello from there"]
    assert sink.messages("app.audit") == own.messages("app.audit") == ["audited"]
    assert open_descriptors() == before


def test_handlers_that_the_master_does_not_have_stay_in_the_child(sink: Sink, tmp_path: Path) -> None:
    def loader(line: LogLine) -> None:
        logging.getLogger().handlers.clear()  # new code, which has configured its logs anew
        audit.handlers[:] = [logging.FileHandler(tmp_path / "log")]
        child_of_loader(line, lambda: audit.info("audited"))

    line = load(loader)
    line.close_in_master(PATIENCE)
    assert (tmp_path / "log").read_text() == "audited\n"
    assert sink.messages("app.audit") == ["audited"]


def test_levels_and_filters_of_the_master_count_where_new_code_has_other_handlers(sink: Sink) -> None:
    errors, even = Sink(logging.ERROR), Sink()
    even.addFilter(lambda record: record.getMessage() in "02")

    def loader(line: LogLine) -> None:
        audit.handlers[:] = [logging.StreamHandler()]

        def body() -> None:
            for n in range(4):
                audit.log(logging.ERROR if n == 3 else logging.INFO, "%d", n)

        child_of_loader(line, body)

    with handlers_of(audit, errors, even):
        line = load(loader)
        line.close_in_master(PATIENCE)
    assert errors.messages("app.audit") == ["3"]
    assert even.messages("app.audit") == ["0", "2"]


def test_a_process_between_that_logs_by_a_line_of_its_own_keeps_it_to_itself(sink: Sink) -> None:
    with handlers_of(audit, own := Sink()):
        names = sink_names()
        here, there = socket.socketpair()
        between, line = LogLine("between#0"), LogLine("a#0")

        def body() -> None:
            log.info("child")
            audit.info("child")

        def loader() -> None:
            between.in_child()
            assert all(isinstance(handler, Forwarder) for handler in [*audit.handlers, *logging.getLogger().handlers])
            log.info("loader")
            _, [fd], _, _ = socket.recv_fds(there, 10, 1)
            child_of_loader(LogLine.from_writer("a#0", fd, names), body)
            audit.info("loader")
            between.close_in_child(PATIENCE)

        pid = fork(loader)
        socket.send_fds(here, [b"writer"], [line.writer_fd])
        between.in_master()
        line.in_master()
        assert status_of(pid) == 0
        between.close_in_master(PATIENCE)
        line.close_in_master(PATIENCE)
        here.close()
        there.close()
    assert sorted(sink.messages()) == ["child", "loader"]
    assert sorted(own.messages("app.audit")) == ["child", "loader"]
    assert {record.process for record in sink.records if record.getMessage() == "loader"} == {pid}


def test_sinks_are_named_by_their_loggers_without_null_handlers(sink: Sink) -> None:
    with handlers_of(audit, logging.NullHandler(), Sink(), Sink()):
        assert sink_names()[0] == "root"
        assert [name for name in sink_names() if name.startswith("app.")] == ["app.audit", "app.audit"]
