"""The command `domain-events-supervisor`, as it is started; no broker is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor")]
NOBODY_THERE = "amqp://guest:very-secret@127.0.0.1:1/%2F"
APP = """
from domain_events import Receiver

receiver = Receiver()


@receiver.handles("printer", ["user.*", "order.placed"], processes=2)
def print_event(event):
    print(event)


receiver.register(print_event, "mailer", "#", max_retries=3, dead_letter=False, durable=False)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "receivers.py").write_text(APP)
    return tmp_path


def answer(folder: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr.replace('Traceback (most recent call last):\n  File "shop', "")
    return done.returncode, done.stdout, done.stderr


def test_check_prints_the_receivers_and_nothing_else(folder: Path) -> None:
    code, out, err = answer(folder, "shop.receivers", "--check")
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        {
            "name": "printer",
            "binding_keys": ["user.*", "order.placed"],
            "handler": "shop.receivers.print_event",
            "max_retries": 0,
            "dead_letter": True,
            "durable": True,
            "processes": 2,
        },
        {
            "name": "mailer",
            "binding_keys": ["#"],
            "handler": "shop.receivers.print_event",
            "max_retries": 3,
            "dead_letter": False,
            "durable": False,
            "processes": 1,
        },
    ]


def test_check_shows_what_the_flags_make_of_it(folder: Path) -> None:
    code, out, _ = answer(
        folder,
        "--check",
        "--only",
        "printer",
        DOMAIN_EVENTS_MODULES="shop.receivers",
        DOMAIN_EVENTS_PROCESSES="printer=5",
    )
    assert code == 0
    assert [(receiver["name"], receiver["processes"]) for receiver in json.loads(out)] == [("printer", 5)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give at least one module"),
        (("shop.receivers", "--grace", "soon"), "--grace: 'soon' is no number of seconds"),
        (("shop.receivers", "--gra", "1"), "--gra"),
        (("shop.receivers", "--only", "prnter"), "did you mean 'printer'?"),
        (("shop.receivers", "--except", "printer,nobody"), "there is no receiver 'nobody'"),
        (("shop.receivers", "--processes", "pinter=2"), "did you mean 'printer'?"),
        (("shop.receivers", "--http", "localhost:port"), "--http"),
    ],
)
def test_a_usage_error_exits_64_and_says_what_was_wrong(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = answer(folder, *arguments)
    assert (code, out) == (64, "")
    assert told in err


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        ("shop.nothing", "", "there is no module 'shop.nothing'"),
        ("shop", "", "no receiver in shop"),
        ("shop.broken", "import does_not_exist\n", "No module named 'does_not_exist'"),
        ("shop.broken", "raise RuntimeError('no cup of tea')\n", "RuntimeError: no cup of tea"),
        ("shop.broken", APP + 'receiver.register(print, "mailer", "#")\n', "'mailer' is registered already"),
        ("shop.broken", APP + 'receiver.register(print, "x", "a.*b")\n', "a wildcard must be a whole word"),
    ],
)
def test_an_application_that_cannot_work_exits_78_before_anything_is_forked(
    folder: Path, module: str, text: str, told: str, check: tuple[str, ...]
) -> None:
    (folder / "shop" / "broken.py").write_text(text)
    code, out, err = answer(folder, module, *check)
    assert (code, out) == (78, "")
    assert told in err
    assert "child_start" not in err


@pytest.mark.parametrize("source", ["flag", "file", "credential", "environment"])
def test_a_malformed_broker_exits_78_names_its_source_and_keeps_the_password(folder: Path, source: str) -> None:
    url = "amqp//user:very-secret@host"
    (folder / "broker").write_text(url)
    (folder / "broker").chmod(0o600)
    arguments, env = {
        "flag": (("--broker", url), {}),
        "file": (("--broker-file", str(folder / "broker")), {}),
        "credential": ((), {"CREDENTIALS_DIRECTORY": str(folder)}),
        "environment": ((), {"DOMAIN_EVENT_CONSUMER_BROKER": url}),
    }[source]
    code, _, err = answer(folder, "shop.receivers", *arguments, **env)
    assert code == 78
    names = {"flag": "--broker", "environment": "DOMAIN_EVENT_CONSUMER_BROKER"}
    assert names.get(source, str(folder / "broker")) in err
    assert "very-secret" not in err


def test_a_lock_that_cannot_be_made_exits_73(folder: Path) -> None:
    code, _, err = answer(folder, "shop.receivers", "--lock", str(folder / "nowhere" / "lock"))
    assert code == 73
    assert "cannot use" in err


def test_version_and_help_are_there(folder: Path) -> None:
    code, out, _ = answer(folder, "--version")
    assert code == 0
    assert out.startswith("domain-events-supervisor 0.")
    code, out, _ = answer(folder, "--help")
    assert code == 0
    assert out.rstrip().endswith(
        "domain-events-supervisor app.receivers --broker amqp://guest:guest@localhost:5672/%2F"
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the command alone: what is imported must come from an environment."""
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "domain-events-supervisor", tmp_path / "bin")
    shutil.copy(ROOT / "bin" / "domain_events_checkout.py", tmp_path / "bin")
    return tmp_path


def bare(checkout: Path) -> subprocess.CompletedProcess[str]:
    """The command under a Python without any packages."""
    command = [sys.executable, "-S", str(checkout / "bin" / "domain-events-supervisor"), "a b", "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_checkout_uses_its_own_venv(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    assert bare(checkout).stdout == f"{checkout / 'bin' / 'domain-events-supervisor'}|a b|--check|"


def test_a_checkout_without_packages_says_how_to_get_them(checkout: Path) -> None:
    done = bare(checkout)
    assert done.returncode == 78
    assert "has no pika, setproctitle, multiprocessing_logging" in done.stderr
    assert "-m venv" in done.stderr
    assert "Traceback" not in done.stderr


def started(processes: Processes, folder: Path, *arguments: str, **env: str) -> Handle:
    handle = processes.start([*COMMAND, "shop.receivers", "--broker", NOBODY_THERE, *arguments], env=env, cwd=folder)
    wait_until(lambda: handle.output().count("event=child_start") >= 3 or handle.returncode is not None)
    return handle


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_without_a_broker_children_live_and_wait_and_a_stop_is_clean(
    processes: Processes, folder: Path, number: int
) -> None:
    handle = started(processes, folder, "--backoff", "0.05:0.1", "--give-up-after", "0.2")
    wait_until(lambda: handle.output().count("Connection refused") >= 6, what="several tries of each child")
    assert len(handle.children()) == 3
    assert "child_exit" not in handle.output(), "an outage is no crash"
    handle.send(number)
    assert handle.wait() == 0
    assert handle.group() == []
    assert "very-secret" not in handle.output()
    assert "Traceback" not in handle.output()


def test_a_second_master_exits_73_and_names_the_first(processes: Processes, folder: Path) -> None:
    first = started(processes, folder, "--lock", str(folder / "lock"))
    code, _, err = answer(folder, "shop.receivers", "--lock", str(folder / "lock"))
    assert code == 73
    assert f"pid {first.pid}" in err
    first.terminate()
    assert first.wait() == 0


def test_json_logs_are_objects_with_the_fields_of_the_contract(processes: Processes, folder: Path) -> None:
    handle = processes.start(
        [*COMMAND, "shop.receivers", "--broker", NOBODY_THERE],
        env={"DOMAIN_EVENTS_LOG_FORMAT": "json", "DOMAIN_EVENTS_ONLY": "mailer"},
        cwd=folder,
    )
    handle.wait_output('"event": "child_start"')
    handle.terminate()
    assert handle.wait() == 0
    lines = [json.loads(line) for line in handle.output().splitlines()]
    [start] = [line for line in lines if line.get("event") == "child_start"]
    assert (start["receiver"], start["slot"]) == ("mailer", "mailer#0")
    assert isinstance(start["pid"], int)
    assert {"stop_begin", "child_exit", "drain_end"} <= {line.get("event") for line in lines}


def test_closed_standard_descriptors_are_no_reason_to_fail(processes: Processes, folder: Path) -> None:
    command = " ".join([*COMMAND, "shop.receivers", "--broker", NOBODY_THERE])
    handle = processes.start(["/bin/sh", "-c", f"exec {command} <&- >&- 2>&-"], cwd=folder)
    wait_until(lambda: len(handle.children()) == 3)
    for pid in handle.group():
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    handle.terminate()
    assert handle.wait() == 0


def test_the_broker_is_in_no_title(processes: Processes, folder: Path) -> None:
    handle = started(processes, folder)
    for pid in handle.group():
        wait_until(lambda pid=pid: b"domain-events: " in Path(f"/proc/{pid}/cmdline").read_bytes())
        assert b"amqp" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    handle.terminate()
    assert handle.wait() == 0
