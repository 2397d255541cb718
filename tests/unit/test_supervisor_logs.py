"""Logs of a whole supervisor, while its children die and nobody reads what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import proc
from tests.chatting import CRASHES
from tests.processes import ROOT, Handle, Processes
from tests.supervising import PATIENCE
from tests.waiting import wait_until

QUICK = (
    "--backoff",
    "0.001:0.005",
    "--spawn-rate",
    "1000",
    "--grace",
    "600",
    "--kill-after",
    "600",
    "--give-up-after",
    "0",
)

CODES = (0, 80)  # of a master that was told to stop; 80 when one of the children killed itself just then


def command(receivers: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tests.chatting", receivers, *QUICK, "--log-format", "json", *flags]


def parsed(text: str) -> list[dict[str, Any]]:
    """Every line is an object, whole."""
    return [json.loads(line) for line in text.splitlines() if line]


def wait_consuming(handle: Handle, n: int) -> None:
    wait_until(lambda: handle.output().count('"child_consuming"') >= n, what=f"{n} consume")


def pids_of(handle: Handle, slot: str) -> list[int]:
    return [pid for pid in proc.children(handle.pid) if f"receiver {slot}" in proc.title(pid)]


def test_200_restarts_while_everybody_logs_lose_no_last_word_and_no_descriptor(
    processes: Processes, tmp_path: Path
) -> None:
    receivers = "a=last_words b=last_words c=last_words d=last_words loud=flood quiet=quiet"
    handle = processes.start(command(receivers), env={"TEST_CRASHES": str(tmp_path / "crashes")})
    wait_consuming(handle, 6)
    descriptors, threads = len(proc.descriptors(handle.pid)), len(proc.threads(handle.pid))
    # Nobody crashes any more then, and all is written, on a slow machine long after it was logged.
    wait_until(lambda: handle.output().count('"child_exit"') >= CRASHES, 600, "all restarts", pause=0.2)
    # In the middle of a restart each of the four may have had up to four descriptors more or less, and one thread.
    wait_until(lambda: len(proc.threads(handle.pid)) <= threads + 4, 600, "no thread too many")
    # The next death closes what was left open for readers that were late.
    # Of a itself there may be none in this instant, or one without a title: the last to crash is started again.
    [pid, *_] = wait_until(lambda: pids_of(handle, "a#0"), what="a child of a")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(proc.descriptors(handle.pid)) <= descriptors + 16, what="no descriptor too many")
    handle.terminate()
    assert handle.wait() in CODES
    assert handle.group() == []

    lines = parsed(handle.output())
    dead = [line["pid"] for line in lines if line.get("event") == "child_exit" and line["receiver"] in "abcd"]
    said = Counter((line["process"], line["message"]) for line in lines if line.get("logger") == "app.handlers")
    crashed = [pid for pid in dead if said[pid, "last word"]]
    assert len(crashed) >= len(dead) - 4  # those that were told to stop
    for pid in crashed:
        wanted = [f"word {n}" for n in range(20)] + [f"chat {name} {n}" for name in range(2) for n in range(20)]
        assert [said[pid, word] for word in wanted] == [1] * len(wanted)
    quiet = [line["message"] for line in lines if str(line.get("message")).startswith("quiet")]
    assert quiet == [f"quiet {n}" for n in range(len(quiet))]


def test_a_child_that_floods_waits_for_nobody_and_delays_nobody(processes: Processes) -> None:
    handle = processes.start(command("loud=flood quiet=quiet"))
    # The flood goes on until we end it: who were behind it would not be heard.
    wait_until(lambda: "quiet 60" in handle.output(), what="some lines", pause=0.2)
    # Now nobody reads, for longer than the pipe and the buffer last. It must not be enough that the master is slow.
    os.kill(handle.pid, signal.SIGSTOP)
    before = handle.output().count('"flooded"')
    wait_until(lambda: handle.output().count('"flooded"') >= before + 3, what="20 000 more", pause=0.2)
    os.kill(handle.pid, signal.SIGCONT)
    handle.terminate()
    assert handle.wait() == 0
    lines = parsed(handle.output())
    flooded = [line["flooded"] for line in lines if "flooded" in line][-1]
    got = sum(line.get("message", "").startswith("flood ") for line in lines)
    dropped = [line for line in lines if line.get("event") == "log_records_dropped"]
    assert got + sum(line["n"] for line in dropped) == flooded
    assert dropped, "nobody has waited until there was room"
    [loud] = [line["pid"] for line in lines if line.get("event") == "child_exit" and line["receiver"] == "loud"]
    for line in dropped:
        assert (line["receiver"], line["slot"], line["pid"]) == ("loud", "loud#0", loud)


def test_what_a_slow_sink_has_not_written_at_the_end_is_counted(processes: Processes) -> None:
    handle = processes.start(command("loud=flood"), env={"TEST_SLOW_SINK": "1"})
    # So many that they cannot all be written until the end, however slow the child was.
    wait_until(lambda: '"flooded"' in handle.output(), what="10 000 records")
    handle.terminate()
    assert handle.wait() == 0
    lines = parsed(handle.output())
    flooded = [line["flooded"] for line in lines if "flooded" in line][-1]
    written = sum("slowly" in line for line in lines)
    # The child says what has waited in it, the master what it has found in the pipe.
    dropped = [line for line in lines if line.get("event") == "log_records_dropped"]
    assert written + sum(line["n"] for line in dropped) == flooded
    assert {line["logger"].rpartition(".")[2] for line in dropped} == {"log_sender", "log_reader"}


@contextlib.contextmanager
def piped(receivers: str, stderr: int, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A master with this stderr, and nothing at all for -1. Its children print nothing."""
    arguments = command(receivers, *flags)
    if stderr < 0:
        arguments = ["sh", "-c", 'exec "$@" 2>&-', "sh", *arguments]
        stderr = subprocess.DEVNULL
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def restarted(process: subprocess.Popen[bytes], times: int) -> None:
    """Children of `last_words` follow one another."""
    seen: set[int] = set()

    def more(than: int) -> bool:
        seen.update(proc.children(process.pid))
        assert process.poll() is None
        return len(seen) > than

    for n in range(times + 1):
        wait_until(lambda n=n: more(n), what=f"{n} restarts", pause=0.002)  # type: ignore[misc]


@pytest.mark.parametrize("stderr", ["full pipe", "full disk", "closed", "no reader"])
def test_a_stderr_that_takes_nothing_stops_neither_restarts_nor_the_stop(stderr: str) -> None:
    fds: list[int] = []
    match stderr:
        case "full pipe":
            fds += os.pipe()  # and nobody reads
        case "full disk":
            fds.append(os.open("/dev/full", os.O_WRONLY))
        case "closed":
            fds.append(-1)
        case _:
            reader, writer = os.pipe()
            os.close(reader)
            fds.append(writer)
    with piped("a=last_words b=last_words loud=flood quiet=quiet", fds[-1]) as process:
        restarted(process, 20)
        before = proc.own_memory(process.pid)
        restarted(process, 20)
        assert proc.own_memory(process.pid) - before < 20 * 2**20
        process.terminate()
        # The last lines of the children have 2 s, those of the master 2 s, exit functions 5 s: only one that waits for
        # somebody who reads is not through.
        assert process.wait(PATIENCE) in CODES
        assert [pid for pid in _session(process.pid) if proc.lives(pid)] == []
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def test_a_disk_that_has_room_again_gets_the_lines_that_follow(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs a file system of its own")
    try:
        (small / "filler").write_bytes(b"x" * 40_000)
        stderr = os.open(small / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with piped("a=last_words loud=flood", stderr) as process:
            wait_until(lambda: (small / "log").stat().st_size >= 20_000, what="a full disk")
            restarted(process, 10)
            (small / "filler").unlink()

            def has_lines_again() -> bool:
                text = (small / "log").read_bytes()
                if len(text) > 40_000:  # the flood has filled it before a child was started, and nothing follows
                    os.truncate(small / "log", 0)
                return b"child_start" in text

            os.truncate(small / "log", 0)
            wait_until(has_lines_again, what="lines again")
            process.terminate()
            assert process.wait(PATIENCE) in CODES
        os.close(stderr)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _session(leader: int) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.getsid(int(entry)) == leader:
                found.append(int(entry))
    return found
