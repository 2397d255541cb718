"""The operator's command as it is started, against a small master of the test's own."""

from __future__ import annotations

import json
import os
import pty
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domain_events.cli.operator.table import Column, shortened, table, text_width
from domain_events.supervisor.control import Control
from domain_events.supervisor.protocol import (
    Done,
    Failed,
    Metrics,
    Reload,
    Reply,
    Request,
    Restart,
    Scale,
    Status,
    unknown_receiver,
    write_reply,
)
from tests.processes import ROOT
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "domain_events.cli.operator.command"]
NOWHERE = {"DOMAIN_EVENTS_CONTROL": "", "RUNTIME_DIRECTORY": ""}


class Master:
    """Answers from a thread: the receivers printer and mailer, in whatever state a test gives them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Request] = []
        self.report: Any = report([receiver("printer"), receiver("mailer")])
        self.numbers: Any = {
            "master": {"version": "1.2.3", "state": "running", "started_at": 1e9, "rss": 2048},
            "receivers": [],
            "log_records_dropped": {"printer#0": 6},
        }
        self.fate: Reply = Done({})
        self.sleepy = False
        self._selector = selectors.DefaultSelector()
        self._control = Control(str(path), self._selector, self._answer)
        self._end, end = socket.socketpair()
        self._selector.register(end, selectors.EVENT_READ, lambda: None)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._other_end = end

    def close(self) -> None:
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._end.send(b"x")
        self._thread.join(60)
        self._control.close()
        self._selector.close()
        self._end.close()
        self._other_end.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            for key, _ in self._selector.select():
                key.data()

    def _answer(self, request: Request, later: Callable[[Reply], None]) -> Reply | None:
        self.asked.append(request)
        if self.sleepy:
            return None
        match request:
            case Status():
                return Done(self.report)
            case Metrics():
                return Done(self.numbers)
            case Restart(receiver=name) | Scale(receiver=name) if name not in ("printer", "mailer"):
                return unknown_receiver(name, ["printer", "mailer"])
            case _:
                return self.fate


def process(slot: str, state: str = "consuming", **changed: object) -> dict[str, object]:
    return {
        "slot": slot,
        "pid": 27699,
        "state": state,
        "restarts": 0,
        "uptime": 7200.0,
        "handled": 123,
        "retried": 4,
        "dead_lettered": 5,
        "in_flight": None,
        "rss": 52_000_000,
        **changed,
    }


def receiver(name: str, state: str = "consuming", number: int = 1, **changed: object) -> dict[str, object]:
    processes = [process(f"{name}#{index}", state) for index in range(number)]
    return {"name": name, "state": state, "processes": processes, "last_exit": None, **changed}


def report(receivers: list[dict[str, object]]) -> dict[str, object]:
    return {"master": {"pid": 27696, "state": "running", "uptime": 90.0}, "receivers": receivers}


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "control.sock")
    yield master
    master.close()


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **NOWHERE, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def ask(master: Master, *arguments: str, **env: str) -> tuple[int, str, str]:
    return run(*arguments, "--control", str(master.path), **env)


# status


def test_status_as_json_is_what_the_master_says(master: Master) -> None:
    code, out, err = ask(master, "status", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == master.report


@pytest.mark.parametrize("state", ["starting", "backoff", "failed", "draining", "stopped"])
def test_status_is_1_when_some_receiver_does_not_consume(master: Master, state: str) -> None:
    master.report = report([receiver("printer"), receiver("mailer", state)])
    code, out, err = ask(master, "status", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out) == master.report
    code, out, err = ask(master, "status")
    assert (code, err) == (1, "")
    assert "1 of 2 receivers consume" in out


def test_status_for_people_is_a_table(master: Master) -> None:
    crashed = receiver("sync_data", "backoff")
    at = time.time() - 300
    crashed["last_exit"] = {"code": None, "signal": "SIGKILL", "at": at, "in_flight": "x"}
    crashed["processes"] = [
        process("sync_data#0", "backoff", pid=None, uptime=None, restarts=12, handled=1_234_567),
        process("sync_data#1", in_flight="order-5310/42", handled=0),
    ]
    exited = {"code": 70, "signal": None, "at": time.time() - 3 * 86400, "in_flight": None}
    master.report = report(
        [receiver("printer", last_exit=exited), crashed, receiver("mailer", "stopped", number=0)],
    )
    code, out, err = ask(master, "status")
    assert (code, err) == (1, "")
    assert out == (
        "master 27696 running, up 90s: 1 of 3 receivers consume\n"
        "RECEIVER     STATE        PID  UP  HANDLED  RETRY  DEAD  CRASH  IN FLIGHT      LAST EXIT\n"
        "printer      consuming  27699  2h      123      4     5      0  -              exit 70 3d\n"
        "sync_data#0  backoff        -   -     1.2M      4     5     12  -              SIGKILL 5m\n"
        "sync_data#1  consuming  27699  2h        0      4     5      0  order-5310/42\n"
        "mailer       stopped        -   -        -      -     -      -  -              -\n"
    )


def on_a_terminal(master: Master, *, columns: int = 80, **env: str) -> str:
    """What `status` shows there."""
    mine, theirs = pty.openpty()
    terminal = {"COLUMNS": str(columns), "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "NO_COLOR": ""}
    with subprocess.Popen(
        [*COMMAND, "status", "--control", str(master.path)],
        cwd=ROOT,
        env={**os.environ, **terminal, **env},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
    ) as command:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(mine, 65536):
                shown += data
        except OSError:
            pass  # how the end of a terminal looks
        os.close(mine)
        command.wait(60)
    return shown.decode().replace("\r\n", "\n")


def test_thirty_receivers_fit_into_eighty_columns(master: Master) -> None:
    receivers = [receiver(f"synchronise_customers_{number}") for number in range(30)]
    for one in receivers:
        one["last_exit"] = {"code": None, "signal": "SIGKILL", "at": time.time() - 300, "in_flight": None}
        one["processes"] = [process("x#0", handled=98_765, in_flight="dc02f4dd-d35c-4989-997f-3a65500d9aaf")]
    master.report = report(receivers)
    lines = on_a_terminal(master, NO_COLOR="1").splitlines()
    assert len(lines) == 32
    assert max(len(line) for line in lines) <= 80
    assert len({line.split()[0] for line in lines[2:]}) == 30, "the names can still be told apart"
    assert all("dc02f4dd…" in line and "SIGKILL 5m" in line and "98765" in line for line in lines[2:])


def test_colours_are_for_terminals_and_for_those_who_want_them(master: Master) -> None:
    assert "\x1b[32mconsuming\x1b[0m" in on_a_terminal(master)
    assert "\x1b" not in on_a_terminal(master, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(master, TERM="dumb")
    assert "\x1b" not in ask(master, "status")[1]


HOSTILE = "\x1b[2J\r\n\u202e\udc80\x9bx"


def test_an_id_from_outside_cannot_write_to_the_terminal(master: Master) -> None:
    one = receiver("printer")
    one["processes"] = [process("printer#0", in_flight=HOSTILE)]
    master.report = report([one])
    assert r"\x1b[2J\r\n\u202e\udc80\x9bx" in ask(master, "status")[1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", on_a_terminal(master, NO_COLOR="1"))
    out = ask(master, "status", "--json")[1]
    assert out.isascii()
    assert json.loads(out) == master.report
    master.fate = Failed(f"no {HOSTILE}", 1)
    # A reason may have several lines, as a traceback has; no other line can begin like ours.
    assert "no \\x1b[2J\\r\n    \\u202e" in ask(master, "reload")[2]


def test_a_terminal_without_a_character_shows_its_escape(master: Master) -> None:
    master.report = report([receiver("drucker-süd")])
    assert "drucker-s\\xfcd" in ask(master, "status", PYTHONIOENCODING="ascii")[1]


@pytest.mark.parametrize("arguments", [("status", "--json"), ("status",)])
def test_a_reader_that_has_seen_enough_is_no_error(master: Master, arguments: tuple[str, ...]) -> None:
    master.report = report([receiver(f"r{number}", number=20) for number in range(200)])
    command = subprocess.Popen(
        [*COMMAND, *arguments, "--control", str(master.path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    command.stdout.read(10)
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 0


def test_a_full_disk_is_said(master: Master) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "status", "--control", str(master.path)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "domain-events: cannot write to stdout: No space left on device\n")


def test_closed_standard_streams_are_no_reason_to_fail(master: Master) -> None:
    shell = f"exec {' '.join(COMMAND)} status --control {master.path} >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", shell], cwd=ROOT, timeout=60).returncode == 0


# restart, scale, reload


def test_orders_reach_the_master_and_words_go_to_stderr(master: Master) -> None:
    assert ask(master, "restart", "printer") == (0, "", "domain-events: printer has been restarted\n")
    assert ask(master, "scale", "printer=1") == (0, "", "domain-events: printer has 1 process now\n")
    assert ask(master, "reload")[:2] == (0, "")
    assert ask(master, "reload", "--wait") == (0, "", "domain-events: the new code runs\n")
    assert master.asked == [Restart("printer"), Scale("printer", 1), Reload(), Reload(wait=True)]


@pytest.mark.parametrize("timeout", ["0", "1e300"])
def test_one_can_wait_without_an_end(master: Master, timeout: str) -> None:
    assert ask(master, "reload", "--wait", "--timeout", timeout)[0] == 0


def test_the_masters_own_words_are_preferred(master: Master) -> None:
    master.fate = Done({"message": "2 of 2 receivers run the new code"})
    assert ask(master, "reload", "--wait") == (0, "", "domain-events: 2 of 2 receivers run the new code\n")


def test_a_failed_reload_is_1_with_the_reason(master: Master) -> None:
    master.fate = Failed("app.receivers: SyntaxError", 1)
    assert ask(master, "reload", "--wait") == (1, "", "domain-events: app.receivers: SyntaxError\n")


def test_an_unknown_receiver_is_4_with_a_suggestion(master: Master) -> None:
    for arguments in (("restart", "printr"), ("scale", "printr=0")):
        code, out, err = ask(master, *arguments)
        assert (code, out) == (4, "")
        assert err == "domain-events: there is no receiver 'printr'; did you mean 'printer'?\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("explode",),
        ("restart",),
        ("scale", "printer"),
        ("scale", "printer=x"),
        ("scale", "printer=-1"),
        ("scale", "printer=1001"),
        ("scale", f"printer={'9' * 5000}"),
        ("scale", "=1"),
        ("scale", "printer=٣"),
        ("reload", "--timeout", "nan"),
        ("reload", "--timeout", "-1"),
        ("status", "--js"),
    ],
)
def test_usage_is_2(master: Master, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments, DOMAIN_EVENTS_CONTROL=str(master.path))
    assert (code, out) == (2, "")
    assert "usage: domain-events" in err
    assert master.asked == []


# Which master


def test_the_flag_wins_over_the_environment_and_that_over_the_runtime_directory(master: Master) -> None:
    env = {"DOMAIN_EVENTS_CONTROL": "/nowhere/1", "RUNTIME_DIRECTORY": "/nowhere/2"}
    assert ask(master, "status", **env)[0] == 0
    assert run("status", DOMAIN_EVENTS_CONTROL=str(master.path), RUNTIME_DIRECTORY="/nowhere/2")[0] == 0
    assert run("status", RUNTIME_DIRECTORY=str(master.path.parent))[0] == 0


def test_without_a_path_it_says_how_to_give_one() -> None:
    code, out, err = run("status")
    assert (code, out) == (2, "")
    assert "--control PATH or in DOMAIN_EVENTS_CONTROL" in err


def test_no_such_socket_is_3(tmp_path: Path) -> None:
    code, out, err = run("status", "--json", "--control", str(tmp_path / "x"))
    assert (code, out) == (3, "")
    assert err.startswith(f"domain-events: no master answers at {tmp_path / 'x'}: there is no such socket.")


def test_a_socket_that_was_left_over_and_what_is_no_socket_are_3(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    code, _, err = run("restart", "printer", "--control", str(tmp_path / "dead"))
    assert code == 3
    assert "nobody listens" in err
    (tmp_path / "file").write_text("")
    code, _, err = run("reload", "--control", str(tmp_path / "file"))
    assert code == 3
    assert "it is no socket" in err
    code, _, err = run("status", "--control", "x" * 200)
    assert code == 3
    assert "at most 107 bytes" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_socket_is_3_and_says_as_whom_to_ask() -> None:
    script = "\n".join(
        [
            "import os, socket, sys, tempfile",
            "from domain_events.cli.operator.command import main",
            "with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:",
            "    os.chmod(folder, 0o755)",
            "    listener.bind(f'{folder}/x')",
            "    os.chmod(f'{folder}/x', 0o600)",
            "    listener.listen()",
            # All that it imports: somebody else may not be allowed to read this Python.
            "    main(['status', '--control', f'{folder}/nobody'])",
            "    os.seteuid(65534)",
            "    code = main(['status', '--control', f'{folder}/x'])",
            "    os.seteuid(0)",
            "sys.exit(code)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "not allowed; ask as root, or as root" in done.stderr


def test_a_master_that_does_not_answer_in_time_is_3(master: Master) -> None:
    master.sleepy = True
    code, _, err = ask(master, "reload", "--wait", "--timeout", "0.3")
    assert code == 3
    assert "has not answered within 0.3 s; what it has begun goes on" in err


def test_a_master_that_stops_meanwhile_says_so(master: Master) -> None:
    master.sleepy = True
    command = subprocess.Popen(
        [*COMMAND, "reload", "--wait", "--control", str(master.path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: master.asked)
    master.close()
    assert command.communicate(timeout=60)[1] == "domain-events: the master has stopped\n"
    assert command.returncode == 1


class Stranger:
    """Something else that listens: takes one connection after the other, writes `answer` and hangs up."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(60)
        self._socket.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "hung up without an answer"),
        (b'{"ok": tr', "hung up without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "is no master of this version: the reply is not JSON"),
        (b'{"ok": true}\n', "is no master of this version"),
        (write_reply(Done({})), "is no master of this version"),
        (write_reply(Done({"master": 1, "receivers": [1]})), "is no master of this version"),
        (write_reply(Done({"master": {"pid": 1}, "receivers": []})), "is no master of this version"),
    ],
)
def test_what_is_no_master_is_3(tmp_path: Path, answer: bytes, reason: str) -> None:
    stranger = Stranger(tmp_path / "x", answer)
    code, out, err = run("status", "--control", str(tmp_path / "x"))
    stranger.close()
    assert (code, out) == (3, "")
    assert reason in err


# The command itself


def test_version_and_help_are_there() -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"domain-events \d+\.\d+\S*\n", out)
    code, out, _ = run("--help")
    assert code == 0
    assert re.search(r"examples:\n(  domain-events [a-z].*\n)+\Z", out)


# metrics


def test_metrics_are_what_prometheus_reads(master: Master) -> None:
    code, out, err = ask(master, "metrics")
    assert (code, err) == (0, "")
    found = {family.name: family for family in text_string_to_metric_families(out)}
    assert [sample.value for sample in found["domain_events_log_records_dropped"].samples] == [6.0]
    assert out.endswith("\n")
    assert not out.endswith("\n\n")


def test_metrics_of_who_is_no_master_of_this_version_are_none(master: Master) -> None:
    for numbers in ({}, {"receivers": []}, {**master.numbers, "receivers": [{"name": "a"}]}, {"master": 5}):
        master.numbers = numbers
        code, out, err = ask(master, "metrics")
        assert (code, out) == (3, "")
        assert "no master of this version" in err


def test_without_prometheus_client_metrics_name_the_extra(master: Master, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError('No module named prometheus_client', name='prometheus_client')"
    )
    code, out, err = ask(master, "metrics", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (code, out) == (1, "")
    assert "with the extra 'metrics'" in err


@pytest.mark.parametrize("noun", ["status", "metrics", "restart", "scale", "reload", "topology"])
def test_the_help_of_each_noun_ends_with_commands_to_paste(noun: str) -> None:
    code, out, _ = run(noun, "--help")
    assert code == 0
    _, _, examples = out.partition("examples:\n")
    assert examples.splitlines()
    assert all(line.startswith(f"  domain-events {noun}") for line in examples.splitlines())


def test_in_a_checkout_the_command_is_in_bin(master: Master) -> None:
    command = [sys.executable, str(ROOT / "bin" / "domain-events"), "status", "--control", str(master.path)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_asking_a_master_needs_no_amqp() -> None:
    # The package's front door imports everything; what counts is what these rooms ask for themselves.
    script = "\n".join(
        [
            "import sys, types",
            "package = types.ModuleType('domain_events')",
            f"package.__path__ = [{str(ROOT / 'domain_events')!r}]",
            "sys.modules['domain_events'] = package",
            "from domain_events.cli.operator.command import main",
            "code = main(['status', '--control', '/nowhere'])",
            "rooms = ('transport', 'receiver', 'sending', 'supervisor.master', 'supervisor.child')",
            "found = {'pika', 'asyncio', *(f'domain_events.{room}' for room in rooms)} & set(sys.modules)",
            "sys.exit(f'imported: {found}' if found or code != 3 else 0)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# The table


def test_a_table_that_is_too_wide_shortens_what_may_be_shortened() -> None:
    columns = [Column(title="NAME", least=6), Column(title="N", right=True)]
    rows = [["a-very-long-name#0", "1"], ["ab", "22"]]
    assert table(columns, rows, None) == ["NAME                 N", "a-very-long-name#0   1", "ab                  22"]
    assert table(columns, rows, 21) == ["NAME                N", "a-very-long-name#0  1", "ab                 22"]
    assert table(columns, rows, 12) == ["NAME       N", "a-ver…e#0  1", "ab        22"]
    assert [len(line) for line in table(columns, rows, 3)] == [9, 9, 9], "it has its least width"


def test_widths_are_those_of_a_terminal() -> None:
    assert text_width("日本") == 4
    assert text_width("e\u0301") == 1
    assert shortened("日本語日本語", 5) == "日…語"
    assert shortened("abcdefghij", 7) == "abcd…ij"
    assert shortened("abc", 3) == "abc"
