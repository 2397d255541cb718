"""What a child has of its master, and what others see of both."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Processes
from tests.supervising import PATIENCE, Supervised
from tests.waiting import wait_until


def test_a_child_has_no_descriptor_of_its_master_or_of_a_sibling(processes: Processes, tmp_path: Path) -> None:
    with _notify_socket(tmp_path) as listener:
        supervised = Supervised(
            processes,
            "a=steady b=steady c=descriptors",
            "--lock",
            str(tmp_path / "lock"),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        supervised.wait_line("child_consuming", slot="c#0")
        [found] = [line["descriptors"] for line in supervised.log() if "descriptors" in line]
        listener.setblocking(False)
        assert supervised.stop() == 0
    # Python 3.14 on Debian has its libffi open, in every process.
    foreign = ("/proc/", "/usr/lib/")
    above = [target for fd, target in found.items() if int(fd) > 2 and not target.startswith(foreign)]
    assert [target for target in above if target.startswith("pipe:")], above
    kinds = sorted(target.split(":")[0] for target in above)
    # Its lifeline, its status pipe, its log pipe, the one for stacks; the socket pair of its Stop; the shared memory.
    kinds = [kind for kind in kinds if not kind.startswith("/memfd")]
    assert kinds == ["pipe", "pipe", "pipe", "pipe", "socket", "socket"], found


def test_restarts_leave_no_descriptor_behind(processes: Processes) -> None:
    supervised = Supervised(processes, "good=steady bad=exit-three", "--backoff", "0.01:0.01", "--spawn-rate", "200")
    supervised.wait_line("child_exit", count=5, slot="bad#0")
    before = _descriptors(supervised.pid)
    supervised.wait_line("child_exit", count=60, slot="bad#0")
    # One child more or less may be there in this instant: its pipes and its pidfd. In the middle of its fork, or as
    # long as the log of the one before is not read to its end, it is more.
    wait_until(lambda: _descriptors(supervised.pid) <= before + 6, what="no descriptor too many")
    supervised.stop()


def test_titles_name_the_receivers_and_their_states(processes: Processes) -> None:
    supervised = Supervised(processes, "printer=steady away=waiting")
    supervised.wait_line("child_consuming", slot="printer#0")
    supervised.wait_line("child_start", slot="away#0")
    for pid, title, name in (
        (supervised.pid, "domain-events: master tests 1/2", "domain-events"),
        (supervised.pid_of("printer#0"), "domain-events: receiver printer#0 consuming", "printer#0"),
        (supervised.pid_of("away#0"), "domain-events: receiver away#0 waiting", "away#0"),
    ):
        # One after the other is set.
        shown = title, name
        wait_until(lambda pid=pid, shown=shown: (_title(pid), _name(pid)) == shown, PATIENCE, title)
    assert supervised.stop() == 0


def test_a_second_master_with_the_same_lock_is_refused_and_told_who_holds_it(
    processes: Processes, tmp_path: Path
) -> None:
    lock = str(tmp_path / "lock")
    first = Supervised(processes, "a=steady", "--lock", lock)
    first.wait_line("child_consuming", slot="a#0")
    second = Supervised(processes, "a=steady", "--lock", lock)
    second.handle.wait()
    assert f"locked by the master with pid {first.pid}" in second.handle.output()
    child = first.pid_of("a#0")
    os.kill(child, signal.SIGSTOP)
    first.handle.kill()
    first.handle.wait()
    third = Supervised(processes, "a=steady", "--lock", lock)
    third.wait_line("child_consuming", slot="a#0")
    assert third.stop() == 0, "an orphan does not hold the lock"


def test_systemd_hears_ready_status_watchdog_and_stopping(processes: Processes, tmp_path: Path) -> None:
    with _notify_socket(tmp_path) as listener:
        supervised = Supervised(
            processes,
            "good=steady bad=exit-three",
            "--backoff",
            "30:30",
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="200000",
        )
        heard: list[str] = []
        _hear(listener, heard, "READY=1")
        _hear(listener, heard, "STATUS=1/2 consuming; bad#0 failed: exit 3")
        _hear(listener, heard, "WATCHDOG=1")
        seen = len(heard)
        supervised.send(signal.SIGTERM)
        # Who does not listen meanwhile misses it: the queue of a socket is soon full of signs of life (unix(7)).
        _hear(listener, heard, "STATUS=stopped")
        assert supervised.wait() == 0
    after = [text for text in heard[seen:] if text != "WATCHDOG=1"]
    assert after[0] == "STOPPING=1"
    assert heard.count("READY=1") == 1


def test_ready_consuming_waits_until_all_consume(processes: Processes, tmp_path: Path) -> None:
    with _notify_socket(tmp_path) as listener:
        supervised = Supervised(
            processes, "good=steady away=waiting", "--ready", "consuming", NOTIFY_SOCKET=f"{tmp_path}/notify"
        )
        heard: list[str] = []
        _hear(listener, heard, "STATUS=1/2 consuming; away#0 starting: nobody home")
        assert supervised.stop() == 0
        _hear(listener, heard, "STATUS=stopped")
    assert "READY=1" not in heard


def test_the_handlers_of_a_child_cannot_speak_for_the_service(processes: Processes, tmp_path: Path) -> None:
    with _notify_socket(tmp_path):
        supervised = Supervised(processes, "a=environment", NOTIFY_SOCKET=f"{tmp_path}/notify", WATCHDOG_USEC="1000000")
        supervised.wait_line("child_consuming", slot="a#0")
        [names] = [line["environment"] for line in supervised.log() if "environment" in line]
        assert supervised.stop() == 0
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(names)


def test_without_a_process_to_be_had_a_fork_counts_as_a_failed_start(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady", TEST_LIMIT="processes")
    supervised.handle.wait_output(f"cannot be forked: {os.strerror(errno.EAGAIN)}")
    wait_until(lambda: supervised.handle.output().count("cannot be forked") > 3, PATIENCE, "more tries")
    assert supervised.stop() == 0


def test_without_a_descriptor_to_be_had_a_fork_counts_as_a_failed_start(processes: Processes) -> None:
    supervised = Supervised(processes, "a=steady", "--processes", "a=20", TEST_LIMIT="descriptors")
    supervised.handle.wait_output(f"cannot be forked: {os.strerror(errno.EMFILE)}")
    supervised.wait_line("child_consuming")  # those that were forked before
    assert supervised.handle.returncode is None
    assert supervised.stop() == 0


@contextmanager
def _notify_socket(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        yield listener


def _hear(listener: socket.socket, heard: list[str], wanted: str) -> None:
    listener.settimeout(PATIENCE)
    while wanted not in heard:
        heard.append(listener.recv(65536).decode())


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().rstrip()
