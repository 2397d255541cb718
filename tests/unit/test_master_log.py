"""The master's own log lines, while its sinks are slow or stuck."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from domain_events.supervisor.logs import held_across_fork
from domain_events.supervisor.master_log import MasterLog
from tests.waiting import wait_until

log = logging.getLogger("domain_events.supervisor")
deeper = logging.getLogger("domain_events.supervisor.notify")
app = logging.getLogger("app.hooks")


class Sink(logging.Handler):
    """Keeps what it was given; waits for `open` before each."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.open.wait(60)
        self.messages.append(record.getMessage())


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Of the logger above ours, as it would be of the root logger."""
    above = logging.getLogger("domain_events")
    level = above.level
    above.addHandler(sink := Sink())
    above.propagate = False  # pytest has handlers at the root
    above.setLevel(logging.INFO)
    yield sink
    above.removeHandler(sink)
    above.propagate = True
    above.setLevel(level)


def test_lines_arrive_in_order_and_all_of_them_before_the_end(sink: Sink) -> None:
    with MasterLog():
        for n in range(100):
            (log if n % 2 else deeper).info("line %d", n)
    assert sink.messages == [f"line {n}" for n in range(100)]
    log.info("after it")
    assert sink.messages[-1] == "after it"


def test_nobody_waits_for_a_stuck_sink_and_what_is_dropped_is_counted(sink: Sink) -> None:
    with MasterLog(bound=10) as master_log:
        sink.open.clear()
        log.info("in the hand of the writer")
        wait_until(lambda: master_log._queue.empty())
        for n in range(25):
            log.info("line %d", n)
        sink.open.set()
    dropped = f"event=log_records_dropped slot=master pid={os.getpid()} n=15"
    assert sorted(sink.messages) == sorted(
        ["in the hand of the writer", *(f"line {n}" for n in range(10)), dropped],
    )


def test_what_is_dropped_is_said_also_when_no_line_follows(sink: Sink) -> None:
    with MasterLog(bound=0):
        for n in range(3):
            log.info("line %d", n)
    assert sink.messages == [f"event=log_records_dropped slot=master pid={os.getpid()} n=3"]


def test_a_sink_that_stays_stuck_holds_up_neither_the_end_nor_what_is_logged_after_it(sink: Sink) -> None:
    sink.open.clear()
    master_log = MasterLog()
    with master_log:
        log.info("stuck")
        master_log.close(0.1)
        log.info("would be stuck too")
    sink.open.set()
    wait_until(lambda: not _writers())
    master_log.restore()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_logs_by_its_own_ways(sink: Sink) -> None:
    with MasterLog() as master_log:
        with held_across_fork():
            pid = os.fork()
        if not pid:
            master_log.close()
            log.info("from the child")
            os._exit(0 if sink.messages == ["from the child"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sink.messages == []


def test_what_the_application_logs_in_the_main_thread_does_not_wait_either(sink: Sink) -> None:
    app.addHandler(sink)
    app.propagate = False
    try:
        with MasterLog():
            sink.open.clear()
            app.warning("from a hook")
            sink.open.set()
        assert sink.messages == ["from a hook"]
        app.warning("after it")
    finally:
        app.propagate = True
        app.removeHandler(sink)
    assert sink.messages == ["from a hook", "after it"]


def test_other_threads_write_by_themselves_and_wait(sink: Sink) -> None:
    thread = threading.Thread(target=log.info, args=("from a thread",))
    with MasterLog(bound=0):
        sink.open.clear()
        thread.start()
        log.info("dropped")
        sink.open.set()
        thread.join()
        assert sink.messages == ["from a thread"]


def test_levels_and_filters_decide_at_once_and_a_filter_that_fails_stops_nobody(sink: Sink) -> None:
    broken, errors = Sink(), Sink()
    errors.setLevel(logging.ERROR)
    broken.addFilter(lambda record: bool(1 / 0))
    above = logging.getLogger("domain_events")
    above.addHandler(broken)
    above.addHandler(errors)
    try:
        with MasterLog():
            log.info("a line")
    finally:
        above.removeHandler(broken)
        above.removeHandler(errors)
    assert sink.messages == ["a line"]
    assert errors.messages == []
    assert broken.messages == ["a filter has failed, and a record of domain_events.supervisor is lost"]


def test_every_logger_has_its_own_handlers_again_at_the_end(sink: Sink) -> None:
    null = logging.NullHandler()
    app.handlers[:] = [null, sink]
    before, last_resort = logging.getLogger().handlers[:], logging.lastResort
    with MasterLog():
        assert sink not in app.handlers
        assert null in app.handlers
    assert app.handlers == [null, sink]
    assert logging.getLogger().handlers == before
    assert logging.lastResort is last_resort
    app.handlers.clear()


def _writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log-writer"]
