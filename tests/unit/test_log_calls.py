"""Log calls of a child from everywhere and with everything: none waits, none is lost without a count."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.log_frames import FRAME_LIMIT
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.packets import MAX_PAYLOAD, Unpacker, packet, packets
from tests.forking import PATIENCE, Sink, fork, fork_child, log, only_sink, run_child, status_of, stderr_into

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with only_sink() as sink:
        yield sink


# Things that are hard to write down


def test_an_object_whose_text_logs_the_object_itself_comes_to_an_end(sink: Sink) -> None:
    class Chatty:
        def __repr__(self) -> str:
            log.info("%r", self)
            log.info("%r", self)
            return "chatty"

    def body() -> None:
        log.info("%r", Chatty())
        log.info("after")

    run_child(body)
    assert sink.messages()[-2:] == ["chatty", "after"]
    assert sum("not formatted" in message for message in sink.messages()) == 2**8


def test_an_object_whose_text_logs_something_else_is_formatted(sink: Sink) -> None:
    class Verbose:
        def __str__(self) -> str:
            log.info("asked for my text")
            return "verbose"

    run_child(lambda: log.info("%s", Verbose(), extra={"what": Verbose()}))
    assert sink.messages() == ["asked for my text", "asked for my text", "verbose"]


def test_broken_exceptions_arrive(sink: Sink) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    class Worse(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise RuntimeError("no cause")

    def body() -> None:
        for error in Broken(), Worse("worse"):
            try:
                raise error
            except (Broken, Worse):
                log.exception("failed")
        log.error("odd", exc_info=(None, None, None))
        record = logging.makeLogRecord({"name": log.name, "levelno": 40, "msg": "odder", "exc_info": "no exception"})
        log.handle(record)
        record = logging.makeLogRecord({"name": log.name, "levelno": 40, "msg": "oddest", "stack_info": 7})
        log.handle(record)

    run_child(body)
    assert sink.messages() == ["failed", "failed", "odd", "odder", "oddest"]
    texts = [record.exc_text for record in sink.records]
    assert "Broken: <exception str() failed>" in (texts[0] or "")
    assert "Worse" in (texts[1] or "")
    assert "not formatted" in (texts[3] or "")
    assert sink.records[4].stack_info == "7"


def test_nested_extras_stay_nested(sink: Sink) -> None:
    circle: list[object] = []
    circle.append(circle)
    extra = {
        "request": {"path": "/", "ids": [1, 2, (3,)], "at": Path("/x"), "nan": float("inf")},
        "circle": circle,
        "keys": {(1, 2): 3},
        "long": list(range(100_000)),
        "set": {1},
    }
    run_child(lambda: log.info("with extras", extra=extra))
    [record] = sink.records
    arrived = vars(record)
    assert arrived["request"] == {"path": "/", "ids": [1, 2, [3]], "at": "/x", "nan": float("inf")}
    assert arrived["circle"] == "[[...]]"
    assert arrived["keys"] == "{(1, 2): 3}"
    assert arrived["long"].startswith("[0, 1, 2")
    assert len(arrived["long"]) < 5000
    assert arrived["set"] == "{1}"


def test_logging_without_any_stack_left_is_counted(sink: Sink) -> None:
    made = 0

    def body() -> None:
        def deeper() -> None:
            nonlocal made
            with suppress(RecursionError):
                log.info("deep %d", made)
                made += 1
            deeper()

        with suppress(RecursionError):
            deeper()
        os.write(done, struct.pack("q", made))

    ready, done = os.pipe()
    run_child(body)
    (made,) = struct.unpack("q", os.read(ready, 8))
    os.close(ready)
    os.close(done)
    assert len(sink.messages()) + sum(sink.dropped()) == made
    assert made > 100


def test_a_flood_of_huge_messages_takes_little_memory(sink: Sink) -> None:
    line = LogLine("a#0")

    def live() -> None:
        line.in_child()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3000):
            log.info("x" * 100_000)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        log.info("enough")
        os.write(done, struct.pack("q", used))
        line.close_in_child(PATIENCE)

    ready, done = os.pipe()
    pid = fork(live)
    (used,) = struct.unpack("q", os.read(ready, 8))  # nobody has read until now
    line.in_master()
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    os.close(ready)
    os.close(done)
    assert used < 150 * 1024  # KiB: 5000 of them would be 320 MiB
    assert len(sink.messages()) + sum(sink.dropped()) == 3001


# Signals and threads

OFTEN = (signal.ITIMER_PROF, 0.001, 0.001)
"""Of this process's processor time: on a busy machine too a handler gets on before the next signal interrupts it."""


def test_signals_again_and_again_that_log_lose_nothing(sink: Sink) -> None:
    def body() -> None:
        signals, last = count(), 0

        def on_signal(*_: object) -> None:
            nonlocal last
            last = next(signals)
            n = last  # of its own, also when another signal interrupts this one
            log.warning("signal %d %s", n, "y" * (n % 7000))  # some are too long for one packet

        signal.signal(signal.SIGPROF, on_signal)
        signal.setitimer(*OFTEN)
        n = 0
        while last < 200 or n < 2000:
            log.info("main %d %s", n, "x" * (n % 7000))
            n += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        os.write(done, struct.pack("qq", n, next(signals)))

    ready, done = os.pipe()
    line = LogLine("a#0")
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    n, by_signal = struct.unpack("qq", os.read(ready, 16))
    os.close(ready)
    os.close(done)
    found = [message.split(" ") for message in sink.messages()]
    by_main = [int(number) for name, number, _ in found if name == "main"]
    assert by_main == sorted(by_main)
    assert len({(name, number) for name, number, _ in found}) == len(found)
    assert all(len(text) == int(number) % 7000 for _, number, text in found)
    assert len(found) + sum(sink.dropped()) == n + by_signal


def test_a_signal_handler_that_raises_in_log_calls_breaks_nothing(sink: Sink) -> None:
    class TooLate(Exception):
        pass

    def body() -> None:
        raised, wanted = 0, 300

        def on_signal(*_: object) -> None:
            nonlocal raised
            if raised < wanted:
                raised += 1
                raise TooLate

        def work() -> None:
            while raised < wanted:
                with suppress(TooLate):
                    while raised < wanted:  # some log calls swallow it, as those of `logging` do
                        log.info("main")

        signal.signal(signal.SIGPROF, on_signal)
        signal.setitimer(*OFTEN)
        with suppress(TooLate):
            while raised < wanted:
                with suppress(TooLate):
                    work()
        signal.setitimer(signal.ITIMER_PROF, 0)
        assert raised > 10
        log.info("last")

    line = LogLine("a#0", bound=100_000)
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    assert sink.messages()[-1] == "last"


def test_records_of_each_thread_arrive_in_its_order(sink: Sink) -> None:
    def work(name: int) -> None:
        for n in range(1000):
            log.info("%d %d %s", name, n, "x" * (n * 37 % 6000))

    def body() -> None:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    line = LogLine("a#0", bound=100_000)
    pid = fork_child(line, body)
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    found = [message.split(" ") for message in sink.messages()]
    for name in range(6):
        assert [int(n) for who, n, _ in found if who == str(name)] == list(range(1000))
    assert all(len(text) == int(n) * 37 % 6000 for _, n, text in found)


def test_threads_that_log_while_the_line_is_closed_reach_the_master_or_stderr(sink: Sink, tmp_path: Path) -> None:
    def work(counted: list[int]) -> None:
        while True:
            log.info("%s", "thread")
            counted[0] += 1

    def live() -> None:
        line.in_child()
        counts = [[0] for _ in range(3)]
        for counted in counts:
            threading.Thread(target=work, args=(counted,), daemon=True).start()
        time.sleep(0.2)
        line.close_in_child(PATIENCE)
        time.sleep(0.1)
        os.write(done, struct.pack("q", sum(counted[0] for counted in counts)))

    ready, done = os.pipe()
    line = LogLine("a#0")
    with stderr_into(tmp_path / "stderr"):
        pid = fork(live)
    line.in_master()
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    (made,) = struct.unpack("q", os.read(ready, 8))
    os.close(ready)
    os.close(done)
    text = (tmp_path / "stderr").read_text()
    told = sum(sink.dropped())
    # The threads go on while the process ends: each may be in the middle of its last one or two.
    assert made <= len(sink.messages()) + text.count("INFO:thread") + told


# Last words


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashed() -> None:
    faulthandler.disable()  # that of pytest
    os.kill(os.getpid(), signal.SIGSEGV)


def left() -> None:
    os._exit(3)


@pytest.mark.parametrize("end", [killed, crashed, left])
def test_what_was_logged_just_before_a_sudden_death_arrives(sink: Sink, end: Callable[[], object]) -> None:
    def live() -> None:
        line.in_child()
        for n in range(20):
            log.info("word %d", n)
        end()

    for _ in range(20):
        sink.records.clear()
        line = LogLine("a#0")
        pid = fork(live)
        line.in_master()
        assert status_of(pid) != 0
        line.close_in_master(PATIENCE)
        assert sink.messages() == [f"word {n}" for n in range(20)]


def test_a_record_that_is_logged_when_everything_ends_goes_to_stderr(sink: Sink, tmp_path: Path) -> None:
    class Finalized:
        def __del__(self) -> None:
            log.info("finalized")

    def live() -> None:
        thing = Finalized()
        line.in_child()
        line.close_in_child()
        del thing
        logging.shutdown()
        log.info("after the shutdown of logging")

    line = LogLine("a#0")
    with stderr_into(tmp_path / "stderr"):
        pid = fork(live)
    line.in_master()
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    assert (tmp_path / "stderr").read_text() == "INFO:finalized\nINFO:after the shutdown of logging\n"


# Stderr


def test_an_orphan_whose_stderr_nobody_reads_does_not_wait_for_each_line(sink: Sink) -> None:
    """It waits half a second for the first: for each of these it would be much longer than anybody's patience."""
    full_read, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, b"x" * 4096)
    os.set_blocking(full, True)
    ready, done = os.pipe()

    def live() -> None:
        os.dup2(full, 2)
        line.in_child()
        line.close_in_child()
        began = time.monotonic()
        for n in range(300):
            log.info("line %d", n)
        os.write(done, struct.pack("d", time.monotonic() - began))

    line = LogLine("a#0")
    pid = fork(live)
    line.in_master()
    assert status_of(pid) == 0
    line.close_in_master(PATIENCE)
    (took,) = struct.unpack("d", os.read(ready, 8))
    assert took < PATIENCE / 2
    for fd in (full_read, full, ready, done):
        os.close(fd)


# Packets


@given(
    st.lists(st.sampled_from([1, 2, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD]), max_size=10),
    st.integers(3, 5000),
)
def test_payloads_are_put_together_whatever_the_pieces(sizes: list[int], size: int) -> None:
    payloads = [bytes([97 + n]) * size for n, size in enumerate(sizes)]
    stream = b"".join(piece for payload in payloads for piece in packets(payload))
    unpacker = Unpacker(FRAME_LIMIT)
    found = [p for at in range(0, len(stream), size) for p in unpacker.feed(stream[at : at + size])]
    assert found == payloads


def test_whole_payloads_may_come_between_the_packets_of_a_long_one() -> None:
    pieces = list(packets(b"l" * 10_000))
    assert all(len(piece) <= MAX_PAYLOAD + 4 for piece in pieces)
    unpacker = Unpacker(FRAME_LIMIT)
    found = [p for piece in pieces for p in unpacker.feed(packet(b"short") + piece)]
    assert found == [b"short"] * len(pieces) + [b"l" * 10_000]


def test_a_payload_beyond_the_limit_is_cut() -> None:
    unpacker = Unpacker(5000)
    assert [len(p) for piece in packets(b"l" * 10_000) for p in unpacker.feed(piece)] == [5000]
