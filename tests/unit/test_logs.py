"""Logs of children, with real forks."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.counting import Counter
from domain_events.supervisor.log_frames import FRAME_LIMIT, Addressed, pack, pack_dropped, unpack
from domain_events.supervisor.log_reader import LogReader
from domain_events.supervisor.log_sender import LogSender
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.packets import Unpacker, packet
from domain_events.supervisor.sinks import find_sinks
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
    stderr_into,
    wait_for,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with only_sink() as sink:
        yield sink


def packed(record: logging.LogRecord) -> bytes:
    return pack(record, "root", [0])


def unpacked(frame: bytes) -> logging.LogRecord:
    addressed = unpack(frame)
    assert isinstance(addressed, Addressed)
    return addressed.record


# What arrives


def test_records_arrive_in_order_and_are_the_childs(sink: Sink) -> None:
    before = time.time()

    def body() -> None:
        for i in range(3000):
            log.info("record %d", i)
        thread = threading.Thread(target=log.warning, args=("from a thread",), name="de-io")
        thread.start()
        thread.join()

    line = LogLine("a#0")
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    assert sink.messages() == [f"record {i}" for i in range(3000)] + ["from a thread"]
    assert {record.process for record in sink.records} == {pid}
    assert before <= sink.records[0].created <= sink.records[-1].created <= time.time()
    last = sink.records[-1]
    assert (last.levelname, last.threadName) == ("WARNING", "de-io")
    assert last.args is None


def test_what_the_childs_logger_does_not_want_is_not_sent(sink: Sink) -> None:
    def body() -> None:
        log.debug("no")
        log.info("yes")

    run_child(body)
    assert sink.messages() == ["yes"]


def test_level_and_filter_of_each_sink_decide_in_the_master(sink: Sink) -> None:
    errors, even = Sink(logging.ERROR), Sink()
    even.addFilter(lambda record: record.getMessage().endswith(("0", "2")))
    logging.getLogger().handlers += [errors, even]

    def body() -> None:
        log.info("0")
        log.error("1")
        log.info("2")

    run_child(body)
    assert sink.messages() == ["0", "1", "2"]
    assert errors.messages() == ["1"]
    assert even.messages() == ["0", "2"]


def test_a_sink_that_raises_does_not_keep_records_from_the_others(
    sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("broken sink")

    logging.getLogger().handlers.insert(0, Broken())

    def body() -> None:
        log.info("one")
        log.info("two")

    run_child(body)
    assert sink.messages() == ["one", "two"]
    assert capsys.readouterr().err.count("broken sink") >= 2


def test_what_cannot_be_pickled_or_shown_arrives_as_text(sink: Sink) -> None:
    class Stubborn:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    extra = {
        "lock": threading.Lock(),
        "count": 3,
        "none": None,
        "stubborn": Stubborn(),
        "huge": 10**5000,
        "ok": True,
    }

    def body() -> None:
        log.info("with extras", extra=extra)
        log.info("%s", Stubborn())
        log.info("%d and %d", "x")
        try:
            raise LookupError("no such user")
        except LookupError:
            log.exception("failed")
        log.info("after")

    run_child(body)
    first, second, third, failed, after = sink.records
    assert vars(first)["lock"].startswith("<unlocked _thread.lock")
    assert (vars(first)["count"], vars(first)["none"], vars(first)["ok"]) == (3, None, True)
    assert vars(first)["stubborn"] == "<Stubborn, whose str() raised RuntimeError>"
    assert vars(first)["huge"] == "<int, whose str() raised ValueError>"
    assert "not formatted: RuntimeError" in second.getMessage()
    assert third.getMessage() == "'%d and %d' with arguments ('x',) (not formatted: TypeError)"
    assert failed.exc_info is None
    assert failed.exc_text is not None
    assert failed.exc_text.startswith("Traceback (most recent call last)")
    assert failed.exc_text.endswith("LookupError: no such user")
    assert after.getMessage() == "after"


def test_lone_surrogates_arrive(sink: Sink) -> None:
    run_child(lambda: log.info("file \ud800 %s", "caf\udce9 😀\0"))
    assert sink.messages() == ["file \ud800 caf\udce9 😀\0"]


def test_of_a_message_of_10_mib_both_ends_arrive(sink: Sink) -> None:
    run_child(lambda: log.info("first %s last", "😀" * (10 * 2**20)))
    [message] = sink.messages()
    assert len(message) < 70_000
    assert message.startswith("first 😀")
    assert message.endswith("😀 last")
    assert " characters left out " in message


@given(
    text=st.text(st.characters(codec=None, categories=None)),
    value=st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(), st.integers(-(2**63), 2**64 - 1)),
)
def test_a_record_survives_the_way(text: str, value: object) -> None:
    record = logging.LogRecord("name", 30, "/path.py", 7, "%s", (text,), None, "function")
    vars(record)["extra"] = value
    arrived = unpacked(packed(record))
    assert arrived.getMessage() == text
    assert vars(arrived)["extra"] == value
    unchanged = {name: v for name, v in vars(record).items() if name not in ("args", "msg")}
    assert unchanged.items() <= vars(arrived).items()


def test_a_record_of_a_thousand_long_extras_loses_the_extras() -> None:
    record = logging.LogRecord("name", 30, "/path.py", 7, "kept", (), None)
    vars(record).update({f"extra{i}": "😀" * 4000 for i in range(1000)})
    frame = packed(record)
    assert len(frame) < FRAME_LIMIT
    assert unpacked(frame).getMessage() == "kept"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"name": "x"}',
        b"\xff",
        b"null",
        b"[1]",
        b'[1, "x"]',
        b'["root", [0], {}]',
        b'["root", ["0"], {}]',
    ],
)
def test_what_is_no_record_is_a_value_error(frame: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(frame)


# What is dropped


def dropping_child(line: LogLine, body: Callable[[], object]) -> int:
    """`body` runs to its end before the master begins to read."""
    ready, done = os.pipe()

    def live() -> None:
        line.in_child()
        body()
        os.write(done, b"x")
        line.close_in_child(PATIENCE)

    pid = fork(live)
    assert select.select([ready], [], [], PATIENCE)[0]
    os.close(ready)
    os.close(done)
    line.in_master()
    return pid


def test_records_over_the_bound_are_counted_exactly_and_told_in_few_lines(sink: Sink) -> None:
    line = LogLine("a#0", bound=100)

    def body() -> None:
        for i in range(20_000):
            log.info("record %d", i)

    pid = dropping_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    n = sum(sink.dropped())
    assert n > 15_000
    assert len(sink.dropped()) <= 5
    assert len(sink.messages()) + n == 20_000
    assert {record.levelname for record in sink.records if record.name != log.name} == {"WARNING"}


def test_the_drop_count_comes_with_the_next_records_not_only_at_the_end(sink: Sink) -> None:
    line = LogLine("a#0", bound=10)
    go, wait = os.pipe()

    def body() -> None:
        for i in range(5000):
            log.info("record %d", i)

    ready, done = os.pipe()

    def live() -> None:
        line.in_child()
        body()
        os.write(done, b"x")
        os.read(go, 1)
        line.close_in_child(PATIENCE)  # the count may overtake some of the records that wait

    pid = fork(live)
    assert select.select([ready], [], [], PATIENCE)[0]
    line.in_master()
    wait_for(sink.dropped, "the count")  # the child lives and logs nothing
    os.write(wait, b"x")
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    assert len(sink.messages()) + sum(sink.dropped()) == 5000
    for fd in (go, wait, ready, done):
        os.close(fd)


def test_threads_and_a_signal_handler_lose_no_count(sink: Sink) -> None:
    made_read, made_write = os.pipe()

    def body() -> None:
        by_signal = 0

        def on_signal(*_: object) -> None:
            nonlocal by_signal
            by_signal += 1
            log.info("signal")

        signal.signal(signal.SIGPROF, on_signal)
        # Of processor time: on a busy machine too a handler gets on before the next signal interrupts it.
        signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)

        def work() -> None:
            for i in range(3000):
                log.info("record %d", i)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        more = 0
        while by_signal <= 10:
            log.info("record of a fast machine")
            more += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        os.write(made_write, struct.pack("q", 9000 + more + by_signal))

    line = LogLine("a#0", bound=50)
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    (made,) = struct.unpack("q", os.read(made_read, 8))
    assert len(sink.messages()) + sum(sink.dropped()) == made
    os.close(made_read)
    os.close(made_write)


def test_a_log_call_in_a_signal_handler_that_interrupts_a_log_call_returns(sink: Sink) -> None:
    class Interrupting:
        def __str__(self) -> str:
            os.kill(os.getpid(), signal.SIGUSR1)
            return "outer"

    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: log.info("inner"))
        for _ in range(200):
            log.info("%s", Interrupting())

    run_child(body)
    assert sorted(sink.messages()) == ["inner"] * 200 + ["outer"] * 200


def test_a_counter_looks_without_counting_itself() -> None:
    counter = Counter()
    assert counter.value() == 0
    for _ in range(3):
        counter.add()
    assert (counter.value(), counter.value()) == (3, 3)
    counter.add()
    assert counter.value() == 4


# Deaths


def test_children_that_are_killed_silence_nobody(sink: Sink) -> None:
    stop, stopper = os.pipe()
    filler = "x" * 20_000  # so that many die in the middle of a write

    def steady(name: str) -> None:
        os.close(stopper)
        i = 0
        while not select.select([stop], [], [], 0.0005)[0]:
            log.info("%s %d", name, i)
            i += 1
        log.info("%s end", name)

    def victim() -> None:
        while True:
            log.info("victim %s", filler)

    def has_logged(pid: int, seen: int) -> bool:
        return any(record.process == pid for record in sink.records[seen:])

    # None of theirs is dropped, however far behind the readers are.
    lines = [LogLine(f"steady#{i}", bound=1_000_000) for i in range(3)]
    pids = [fork_child(line, partial(steady, f"steady{i}")) for i, line in enumerate(lines)]
    for n in range(120):
        line = LogLine(f"victim#{n}", bound=100)
        pid = fork_child(line, victim)
        seen = len(sink.records)
        wait_for(partial(has_logged, pid, seen), "the victim's logs")
        os.kill(pid, signal.SIGKILL)
        assert status_of(pid) == -signal.SIGKILL
        began = time.monotonic()
        line.close_in_master(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
    os.close(stopper)
    for pid, line in zip(pids, lines, strict=True):
        assert status_of(pid) == 0
        line.close_in_master(PATIENCE)
    os.close(stop)
    for i in range(3):
        mine = [message for message in sink.messages() if message.startswith(f"steady{i}")]
        assert mine == [*(f"steady{i} {n}" for n in range(len(mine) - 1)), f"steady{i} end"]


def test_a_torn_record_ends_the_reader_without_loss_of_those_before_it(
    sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    end, writer = os.pipe()
    reader = LogReader("a#0", end, find_sinks())
    record = packed(logging.LogRecord(log.name, 20, "", 0, "whole", (), None))
    to_nobody = pack(logging.LogRecord("x", 20, "", 0, "to nobody", (), None), "x", None)
    for payload in (record, b"garbage", to_nobody, record):
        os.write(writer, packet(payload))
    os.write(writer, packet(record)[:-1])
    os.close(writer)
    reader.start()
    reader.join(PATIENCE)
    assert not reader.running
    reader.close()
    assert sink.messages() == ["whole", "whole"]
    assert sink.dropped() == [2]
    assert capsys.readouterr().err == ""


def test_children_of_a_dead_master_log_to_stderr(sink: Sink, tmp_path: Path) -> None:
    running, alive = os.pipe()  # EOF when all children are gone

    def child(name: str, master: int) -> None:
        log.info("%s born", name)
        wait_for(lambda: os.getppid() != master, "the master's death")
        for i in range(1000):
            log.info("%s %d", name, i)

    def be_master() -> None:
        for name in (
            "a#0",
            "b#0",
            "c#0",
        ):  # those that come later inherit what the master has of the first ones
            fork_child(LogLine(name), partial(child, name, os.getpid()))
        wait_for(lambda: len(sink.records) == 3, "the children's first words")
        os.write(alive, b"x")
        signal.pause()

    with stderr_into(tmp_path / "stderr"):
        pid = fork(be_master)
    os.close(alive)
    assert os.read(running, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    assert status_of(pid) == -signal.SIGKILL
    assert select.select([running], [], [], PATIENCE)[0], "the orphans hang"
    os.close(running)
    lines = (tmp_path / "stderr").read_text().splitlines()
    for name in ("a#0", "b#0", "c#0"):
        mine = [line for line in lines if name in line]
        # The kernel gives the children another parent shortly before it closes the files of the dead one. What
        # they log in between is in the pipe and lost with it; a pipe holds about 160 of these records.
        assert len(mine) > 800
        assert mine == [f"INFO:{name} {i}" for i in range(1000 - len(mine), 1000)]


def test_closing_in_a_child_that_nobody_reads_ends_in_time_and_says_what_is_lost(sink: Sink, tmp_path: Path) -> None:
    line = LogLine("a#0", bound=20)

    def live() -> None:
        line.in_child()
        for i in range(1000):
            log.info("record %d %s", i, "x" * 2000)
        began = time.monotonic()
        line.close_in_child(0.3)
        assert time.monotonic() - began < PATIENCE / 2, "it has waited for somebody who reads"

    with stderr_into(tmp_path / "stderr"):
        pid = fork(live)  # and no in_master
    assert status_of(pid) == 0
    found = re.search(
        r"event=log_records_dropped receiver=a slot=a#0 pid=\d+ n=(\d+)", (tmp_path / "stderr").read_text()
    )
    line.in_master()
    line.close_in_master(PATIENCE)
    assert found
    assert len(sink.messages()) + int(found[1]) == 1000


FILLER = b"-"


@pytest.fixture
def full() -> Iterator[tuple[int, LogSender]]:
    """The reading end of a pipe that takes nothing more, and a sender that has begun to write to it."""
    end, writer = os.pipe()
    os.set_blocking(end, False)
    sender = LogSender("a#0", writer, bound=100)
    sender.start()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, packet(FILLER))  # a little one, or a count would still fit
    yield end, sender
    os.close(end)
    # The thread must not find another file with this number.
    wait_for(lambda: "log-sender" not in {thread.name for thread in threading.enumerate()}, "the end of the sender")
    sender.close()


def arrived(end: int) -> list[str]:
    """The messages in this pipe, and those that a thread sends when it finds room again and then ends."""
    unpacker = Unpacker(FRAME_LIMIT)
    found: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                found.extend(unpacker.feed(os.read(end, 65536)))

    read()
    wait_for(lambda: "log-sender" not in {thread.name for thread in threading.enumerate()}, "the end of the sender")
    read()
    frames = [unpack(frame) for frame in found if frame != FILLER]
    assert not [frame for frame in frames if not isinstance(frame, Addressed)], "what is said on stderr is said again"
    return [frame.record.getMessage() for frame in frames if isinstance(frame, Addressed)]


def said_to_be_dropped(path: Path) -> list[int]:
    return [
        int(n) for n in re.findall(r"event=log_records_dropped receiver=a slot=a#0 pid=\d+ n=(\d+)", path.read_text())
    ]


def test_a_count_that_the_pipe_does_not_take_is_said_on_stderr(full: tuple[int, LogSender], tmp_path: Path) -> None:
    end, sender = full
    for _ in range(3):
        sender.drop()
    with stderr_into(tmp_path / "stderr"):
        sender.stop(0.3)
        sender.stop(0.3)  # an orphan, for example, does it again
    assert said_to_be_dropped(tmp_path / "stderr") == [3]
    assert arrived(end) == []


@pytest.mark.parametrize("size", [10, 30_000])
def test_what_is_said_to_be_lost_does_not_come_after_all(
    full: tuple[int, LogSender], size: int, tmp_path: Path
) -> None:
    end, sender = full
    for _ in range(20):
        sender.send(packed(logging.LogRecord(log.name, 20, "", 0, "x" * size, (), None)))
    with stderr_into(tmp_path / "stderr"):
        sender.stop(0.3)
    [lost] = said_to_be_dropped(tmp_path / "stderr")
    assert len(arrived(end)) + lost == 20


def test_what_the_master_does_not_write_before_its_end_is_counted(sink: Sink) -> None:
    gate, given_up = threading.Event(), threading.Event()

    class Slow(Sink):
        def emit(self, record: logging.LogRecord) -> None:
            gate.set()
            given_up.wait(PATIENCE)
            super().emit(record)

    slow = Slow()
    logging.getLogger().handlers[:] = [slow]
    end, writer = os.pipe()
    reader = LogReader("a#0", end, find_sinks())
    for n in range(50):
        os.write(writer, packet(packed(logging.LogRecord(log.name, 20, "", 0, f"record {n}", (), None))))
    os.write(writer, packet(pack_dropped(7, os.getpid())))
    reader.start()
    assert gate.wait(PATIENCE)
    reader.give_up()
    given_up.set()
    reader.join(PATIENCE)
    assert not reader.running, "though somebody has the pipe open"
    os.close(writer)
    reader.close()
    assert slow.messages() == ["record 0"]
    assert slow.dropped() == [49 + 7]


def test_a_child_logs_to_stderr_after_it_closed_its_line(sink: Sink, tmp_path: Path) -> None:
    line = LogLine("a#0")

    def live() -> None:
        line.in_child()
        log.info("before")
        line.close_in_child()
        log.info("after")

    with stderr_into(tmp_path / "stderr"):
        pid = fork(live)
    line.in_master()
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    assert sink.messages() == ["before"]
    assert (tmp_path / "stderr").read_text() == "INFO:after\n"


def test_what_a_child_forks_logs_to_stderr_and_holds_nothing_up(sink: Sink, tmp_path: Path) -> None:
    stop, stopper = os.pipe()

    def grandchild() -> None:
        os.close(stopper)
        log.info("grandchild")
        os.read(stop, 1)

    def child() -> None:
        log.info("child")
        fork(grandchild)

    line = LogLine("a#0")
    with stderr_into(tmp_path / "stderr"):
        pid = fork_child(line, child)
    assert status_of(pid) == 0
    began = time.monotonic()
    line.close_in_master(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    wait_for(lambda: (tmp_path / "stderr").read_text() == "INFO:grandchild\n", "the grandchild")
    assert sink.messages() == ["child"]
    os.close(stop)
    os.close(stopper)


def test_a_reader_that_is_held_up_is_left_and_cleaned_up_later(sink: Sink) -> None:
    before = open_descriptors()
    release = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            release.wait(PATIENCE)

    stuck = Stuck()
    logging.getLogger().addHandler(stuck)
    line = LogLine("a#0")
    pid = fork_child(line, lambda: log.info("held up"))
    assert status_of(pid) == 0
    began = time.monotonic()
    line.close_in_master(0.1)
    assert time.monotonic() - began < PATIENCE / 2, "it has waited for the sink"
    assert open_descriptors() == before + 1
    release.set()
    logging.getLogger().removeHandler(stuck)
    wait_for(lambda: not line._is_read, "the reader's end")
    run_child(lambda: None)
    assert open_descriptors() == before


# Forks


def test_forks_do_not_inherit_the_writes_of_another_thread(sink: Sink, tmp_path: Path) -> None:
    class Slow(logging.StreamHandler[TextIO]):
        is_writing = False

        def emit(self, record: logging.LogRecord) -> None:
            self.is_writing = True
            super().emit(record)
            time.sleep(0.0002)
            self.is_writing = False

    stop = threading.Event()
    stream = (tmp_path / "log").open("w")
    logging.getLogger().handlers[:] = [slow := Slow(stream)]

    def child(n: int) -> None:
        assert not slow.is_writing
        log.info("child %d", n)

    def chatter() -> None:
        while not stop.is_set():
            log.info("master %s", "x" * 3000)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        for n in range(200):
            line = LogLine(f"a#{n}")
            pid = fork_child(line, partial(child, n))
            assert status_of(pid) == 0
            line.close_in_master(PATIENCE)
    finally:
        stop.set()
        thread.join()
    stream.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch("master x{3000}", line)] == [f"child {n}" for n in range(200)]


def test_locks_are_free_on_both_sides_after_a_fork(sink: Sink) -> None:
    class OwnLock(Sink):
        """Unknown to the fork hook of `logging`, which renews the locks of other handlers."""

        def createLock(self) -> None:
            self.lock = threading.RLock()

    def are_free() -> bool:
        got: list[bool] = []

        def look() -> None:
            for handler in (sink, own):
                assert handler.lock is not None
                got.append(handler.lock.acquire(timeout=PATIENCE))
                handler.release()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return got == [True, True]

    def body() -> None:
        assert are_free()

    own = OwnLock()
    logging.getLogger().handlers.append(own)
    assert status_of(fork(body)) == 0
    assert are_free()


def test_a_sink_whose_lock_is_never_free_delays_a_fork_for_a_while_only(sink: Sink) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sink.lock:  # type: ignore[union-attr]
            held.set()
            release.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    began = time.monotonic()
    pid = fork(lambda: sink.acquire())
    assert time.monotonic() - began < PATIENCE / 2, "it has waited until the lock was free"
    assert status_of(pid) == 0
    release.set()
    thread.join()
    assert sink.lock is not None
    assert sink.lock.acquire(timeout=PATIENCE)


def test_200_life_cycles_leave_no_descriptor_and_no_thread(sink: Sink) -> None:
    before, threads = open_descriptors(), threading.active_count()
    for n in range(200):
        line = LogLine(f"a#{n}")
        if n % 10 == 0:
            line.discard()
            continue
        pid = fork_child(line, lambda: log.info("hello"))
        assert status_of(pid) == 0
        line.close_in_master(PATIENCE)
    assert open_descriptors() == before
    assert threading.active_count() <= threads  # one of an earlier test may have ended meanwhile
    assert len(sink.messages()) == 180


def test_text_that_the_master_has_not_written_yet_is_not_written_by_the_child(sink: Sink, tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    before, before_original = sys.stdout, sys.__stdout__
    sys.stdout = stream = io.TextIOWrapper(io.FileIO(path, "w"), encoding="utf-8", write_through=False)
    direct = logging.StreamHandler(stream)
    single = logging.getLogger("app.single")
    single.addHandler(direct)
    try:
        stream.write("pending of the master\n")

        def body() -> None:
            print("printed by the child")
            single.info("written by the child")

        run_child(body)
        stream.close()
    finally:
        sys.stdout = before
        sys.__stdout__ = before_original  # type: ignore[misc]
        single.removeHandler(direct)
    assert path.read_text().splitlines() == [
        "printed by the child",
        "pending of the master",
        "written by the child",
    ]
    assert sink.messages("app.single") == ["written by the child"]
