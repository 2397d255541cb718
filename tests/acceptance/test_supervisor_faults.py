"""What an operating system and an application do to a supervisor: it stops all the same, and says the right code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain_events import send_domain_event
from tests.brokers import Broker, Queues
from tests.growing import whole_lines
from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor")]
OFFLINE = """
import atexit, sys, threading, time

from domain_events import Receiver

receiver = Receiver(None)
receiver.register(print, "one", "#")
receiver.register(print, "two", "#")
"""


def app(folder: Path, text: str) -> Path:
    (folder / "app.py").write_text(text)
    return folder


def started(processes: Processes, folder: Path, *flags: str, **env: str) -> Handle:
    """A supervisor whose two children consume."""
    handle = processes.start([*COMMAND, "app", *flags], env=env, cwd=folder)
    wait_until(
        lambda: handle.output().count("event=child_consuming") >= 2 or handle.returncode is not None,
        what="two children that consume",
    )
    assert handle.returncode is None, handle.output()
    return handle


def stopped(handle: Handle) -> int:
    handle.terminate()
    code = handle.wait()
    assert handle.group() == []
    return code


# What an application leaves behind in the master


def test_a_thread_that_the_application_started_does_not_keep_the_master(processes: Processes, tmp_path: Path) -> None:
    text = OFFLINE + "threading.Thread(target=time.sleep, args=(3600,), name='sleeper').start()\n"
    handle = started(processes, app(tmp_path, text))
    assert stopped(handle) == 0
    assert "sleeper" in handle.output(), "who holds the master up is named"


def test_an_exit_function_that_never_returns_does_not_keep_the_master(processes: Processes, tmp_path: Path) -> None:
    handle = started(processes, app(tmp_path, OFFLINE + "atexit.register(time.sleep, 3600)\n"))
    assert stopped(handle) == 0


def test_exit_functions_run_in_the_master(processes: Processes, tmp_path: Path) -> None:
    handle = started(processes, app(tmp_path, OFFLINE + "atexit.register(print, 'good', 'bye')\n"))
    assert stopped(handle) == 0
    assert handle.output().count("good bye") == 1


def test_manage_py_leaves_in_time_too(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    text = OFFLINE + "threading.Thread(target=time.sleep, args=(3600,), name='sleeper').start()\n"
    (tmp_path / "shop" / "receivers.py").write_text(text)
    (tmp_path / "project.py").write_text("INSTALLED_APPS = ['domain_events.django', 'shop']\n")
    handle = processes.start(
        [sys.executable, "-m", "django", "domain_events_supervisor"],
        env={"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
    )
    wait_until(lambda: handle.output().count("event=child_consuming") >= 2 or handle.returncode is not None)
    assert stopped(handle) == 0
    assert "sleeper" in handle.output()


# Signals at the wrong time


def test_sigterm_again_and_again_until_the_end_is_still_a_clean_stop(processes: Processes, tmp_path: Path) -> None:
    text = OFFLINE + "atexit.register(lambda: (print('leaving'), time.sleep(0.5)))\n"
    handle = started(processes, app(tmp_path, text))
    until = time.monotonic() + 60
    while handle.returncode is None and time.monotonic() < until:
        handle.terminate()
        time.sleep(0.001)
    assert "leaving" in handle.output()
    assert handle.wait() == 0


def test_a_master_that_is_started_with_all_signals_blocked_or_ignored_can_be_stopped(
    processes: Processes, tmp_path: Path
) -> None:
    deafen = (
        "import os, signal, sys; "
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]; "
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", deafen, *COMMAND, "app"]
    handle = processes.start(command, cwd=app(tmp_path, OFFLINE))
    wait_until(lambda: handle.output().count("event=child_consuming") >= 2)
    for child in handle.children():
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: handle.output().count("event=child_exit") == 2)
    assert handle.output().count("signal=SIGKILL") == 2, "the ending of a child is seen"
    assert stopped(handle) == 0


# A stderr or stdout that takes nothing


@contextlib.contextmanager
def piped(folder: Path, stdout: int, stderr: int, grace: float = 30) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor with streams of ours, which may not be buffered away (no PYTHONUNBUFFERED)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [*COMMAND, "app", "--grace", str(grace), "--kill-after", "1"],
        cwd=folder,
        env=env,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_children(process: subprocess.Popen[bytes], n: int) -> list[int]:
    wait_until(lambda: len(children_of(process.pid)) == n, what=f"{n} children")
    titled = [b"consuming"] * n
    wait_until(lambda: [_title(pid)[-9:] for pid in children_of(process.pid)] == titled, what=f"{n} consume")
    return children_of(process.pid)


def _title(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    return b""


def running_in(session: int) -> list[int]:
    """What runs in this session, zombies aside (proc(5))."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, _, sid = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state not in "ZX":
                found.append(int(entry))
    return found


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"x" * size)
    os.set_blocking(pipe, True)


def test_a_stderr_that_nobody_reads_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with piped(app(tmp_path, OFFLINE), writer, writer) as process:
        children = wait_children(process, 2)
        fill(writer)
        process.send_signal(signal.SIGHUP)  # each is a line in the log
        process.terminate()
        assert process.wait(60) == 0
        assert [pid for pid in children if os.path.exists(f"/proc/{pid}")] == []
    os.close(reader)
    os.close(writer)


def test_a_stderr_that_nobody_reads_keeps_no_child_from_being_restarted(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with piped(app(tmp_path, OFFLINE), writer, writer) as process:
        before = wait_children(process, 2)
        fill(writer)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(before) & set(children_of(process.pid)), what="the dead are gone")
        wait_children(process, 2)
        process.terminate()
        assert process.wait(60) == 0
    os.close(reader)
    os.close(writer)


def test_the_master_writes_its_stacks_without_waiting_for_a_reader(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with piped(app(tmp_path, OFFLINE), writer, writer, grace=2) as process:
        wait_children(process, 2)
        fill(writer)
        process.send_signal(signal.SIGUSR2)
        process.terminate()
        # The children do wait: they are killed at the deadline.
        assert process.wait(60) in (0, 80)
        assert running_in(process.pid) == []
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["full disk", "no reader"])
def test_a_stream_that_takes_nothing_does_not_change_the_exit_code(tmp_path: Path, which: str, how: str) -> None:
    if how == "full disk":
        broken = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, broken = os.pipe()
        os.close(reader)
    good = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    stdout, stderr = (broken, good) if which == "stdout" else (good, broken)
    with piped(app(tmp_path, OFFLINE + "sys.stdout.write('hello\\n')\n"), stdout, stderr) as process:
        wait_children(process, 2)
        process.terminate()
        assert process.wait(60) == 0
    os.close(good)
    os.close(broken)


@pytest.mark.parametrize("unbuffered", [True, False])
def test_a_check_whose_answer_cannot_be_written_is_no_success(tmp_path: Path, unbuffered: bool) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "app", "--check"],
            cwd=app(tmp_path, OFFLINE),
            env=env | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 70
    assert b"No space left" in done.stderr


def test_a_check_without_a_stdout_tells_by_its_exit_code_alone(tmp_path: Path) -> None:
    command = " ".join([*COMMAND, "app", "--check"])
    done = subprocess.run(f"{command} >&-", shell=True, cwd=app(tmp_path, OFFLINE), timeout=60)
    assert done.returncode == 0


def test_stacks_that_cannot_be_written_down_end_nothing(processes: Processes, tmp_path: Path) -> None:
    text = OFFLINE + f"import tempfile\ntempfile.tempdir = {str(tmp_path / 'nowhere')!r}\n"
    handle = started(processes, app(tmp_path, text))
    handle.send(signal.SIGUSR2)
    handle.wait_output("no stacks: ")
    assert stopped(handle) == 0


# Handlers that fork

FORKING = """
import json, multiprocessing, os, sys, time

from domain_events import Receiver

receiver = Receiver()


def note(*values):
    with open("ledger", "a") as ledger:
        ledger.write(json.dumps(values) + "\\n")


def pool():
    with multiprocessing.get_context("fork").Pool(2) as workers:  # its end is a SIGTERM to each worker
        note("sum", sum(workers.map(abs, range(5))))


def process():
    sleeper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    sleeper.start()
    sleeper.terminate()
    sleeper.join(60)
    note("ended", sleeper.exitcode)


def fork(end):
    pid = os.fork()
    if pid:
        note("fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    else:
        end()


def fork_and_exit():
    fork(lambda: sys.exit(3))


def fork_and_return():
    fork(lambda: None)


def fork_and_raise():
    fork(lambda: 1 / 0)


def handle(event):
    globals()[event.data]()


receiver.register(handle, os.environ["NAME"], os.environ["NAME"])
receiver.register(print, os.environ["NAME"] + ".other", os.environ["NAME"] + ".other")
"""


@pytest.mark.parametrize(
    ("what", "noted"),
    [
        ("pool", ["sum", 10]),
        ("process", ["ended", -signal.SIGTERM]),
        ("fork_and_exit", ["fork", 3]),
        ("fork_and_return", ["fork", 1]),
        ("fork_and_raise", ["fork", 1]),
    ],
)
def test_what_a_handler_forks_ends_as_it_should_and_the_child_lives_on(
    processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path, what: str, noted: list[object]
) -> None:
    name = queues.forget_after(f"{unique}forking")
    queues.forget_after(f"{name}.other")
    handle = started(processes, app(tmp_path, FORKING), NAME=name, DOMAIN_EVENT_BROKER=broker.url)
    children = set(handle.children())
    ledger = tmp_path / "ledger"
    for n in range(1, 4):
        send_domain_event(name, what, connection_settings=broker.url)
        wait_until(lambda n=n: ledger.exists() and len(whole_lines(ledger)) == n, what=f"{n} handled")  # type: ignore[misc]
    assert [json.loads(line) for line in ledger.read_text().splitlines()] == [noted] * 3
    wait_until(lambda: set(handle.children()) == children, what="the same children")
    for words in ("child_exit", "crashed", "lost its master"):
        assert words not in handle.output()
    assert stopped(handle) == 0
