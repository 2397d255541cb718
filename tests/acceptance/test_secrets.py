"""Whatever happens to a supervisor, its broker's password is in nothing that it shows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deploying import COMMAND, OPERATOR
from tests.brokers import Queues
from tests.processes import Handle, Processes
from tests.secret import PASSWORD, leaks, secret_login
from tests.service_manager import Manager
from tests.waiting import wait_until

__all__ = ["secret_login"]  # a fixture

APP = """
import logging, os, time
from domain_events import Receiver, Retry, send_domain_event

logging.getLogger("pika").setLevel(logging.DEBUG)
{beginning}
receiver = Receiver()


@receiver.handles({name!r}, [{key!r}], max_retries=1)
def handle(event):
    send_domain_event("secret.nobody", 1)
    if event.data == "retry" and not event.retries:
        raise Retry(0.1)
    if event.data == "dead":
        raise ValueError("cannot be handled")
    if event.data == "abort":
        os.abort()
    print("handled", event.data, flush=True)
"""


class Secretive:
    """A supervisor of one receiver that logs in with a password, and everything that can be seen of it."""

    def __init__(self, processes: Processes, queues: Queues, name: str, folder: Path, manager: Manager) -> None:
        self._processes = processes
        self.queues = queues
        self.name = name
        self.folder = folder
        self.manager = manager
        self.control = folder / "control.sock"
        self.shown: list[str] = []
        self.handle: Handle

    def write(self, beginning: str = "") -> None:
        text = APP.format(beginning=beginning, name=self.name, key=f"{self.name}.#")
        (self.folder / "app.py").write_text(text)

    def start(self, *flags: str, **env: str) -> Handle:
        more = {"NOTIFY_SOCKET": self.manager.path, "PYTHONDONTWRITEBYTECODE": "1", **env}
        command = [*COMMAND, "app", "--log-level", "debug", "--backoff", "0.1:0.3", "--control", str(self.control)]
        self.handle = self._processes.start([*command, *flags], env=more, cwd=self.folder)
        return self.handle

    def look_at_processes(self) -> None:
        """What ps shows of all of them."""
        for pid in self.handle.group():
            with contextlib.suppress(OSError):
                self.shown.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))

    def look(self) -> None:
        """Besides, what the operator's command tells."""
        self.look_at_processes()
        for arguments in (["status"], ["status", "--json"]):
            self.shown.append(operated(*arguments, control=self.control))

    def assert_silent(self) -> None:
        self.shown += [self.handle.output(), *self.manager.listen()]
        assert leaks("\n".join(self.shown)) == []


def operated(*arguments: str, control: Path) -> str:
    done = subprocess.run(
        [*OPERATOR, *arguments, "--control", str(control)], capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


@pytest.fixture
def secretive(processes: Processes, queues: Queues, unique: str, tmp_path: Path, manager: Manager) -> Secretive:
    return Secretive(processes, queues, queues.forget_after(f"{unique}secret", 100), tmp_path, manager)


def given(way: str, url: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Flags and environment that name the broker."""
    file = folder / "broker"
    file.write_text(f"{url}\n")
    file.chmod(0o600)
    flags = {
        "flag": ["--broker", url],
        "file": ["--broker-file", str(file)],
        "url of a file": ["--broker", f"file://{file}"],
    }
    env = {
        "credential": {"CREDENTIALS_DIRECTORY": str(folder)},
        "environment": {"DOMAIN_EVENT_BROKER": url},
    }
    return flags.get(way, []), env.get(way, {})


def test_a_supervisor_in_all_kinds_of_trouble_does_not_show_it(secretive: Secretive, secret_login: str) -> None:
    secretive.write()
    handle = secretive.start("--broker", secret_login)
    handle.wait_output("event=child_consuming")
    for kind in ("retry", "dead", "abort", "good"):
        secretive.queues.publish(f"{secretive.name}.a", body(kind, secretive.name))
    handle.wait_output("handled retry")
    handle.wait_output("handled good")
    handle.wait_output("signal=SIGABRT")
    secretive.look()
    handle.send(signal.SIGUSR2)
    handle.wait_output("most recent call first")
    secretive.write("raise RuntimeError('broken')")
    handle.send(signal.SIGHUP)
    handle.wait_output("event=reload_failed")
    secretive.write("time.sleep(0.5)")
    handle.send(signal.SIGHUP)

    def reloaded() -> bool:
        secretive.look_at_processes()  # while the process that loads the new code begins
        return "event=reload_ok" in handle.output()

    wait_until(reloaded, what="the reload")
    secretive.look()
    handle.terminate()
    assert handle.wait() == 0
    secretive.shown += map(repr, secretive.queues.drain(f"{secretive.name}:dead"))
    assert "DEBUG pika" in handle.output() or "pika.connection" in handle.output(), "this shows nothing of pika"
    secretive.assert_silent()


def test_the_arguments_are_hidden_before_the_application_is_imported(secretive: Secretive, secret_login: str) -> None:
    secretive.write("print('importing', flush=True); time.sleep(60)")
    handle = secretive.start("--broker", secret_login)
    handle.wait_output("importing")
    for part in ("cmdline", "environ"):
        assert leaks(Path(f"/proc/{handle.pid}/{part}").read_bytes().decode(errors="replace")) == []
    assert b"domain-events: starting app" in Path(f"/proc/{handle.pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("way", "trouble"),
    [
        ("flag", "not escaped"),
        ("file", "no scheme"),
        ("url of a file", "not escaped"),
        ("credential", "wrong password"),
        ("environment", "wrong password"),
    ],
)
def test_a_broker_that_cannot_be_used_is_reported_without_it(
    secretive: Secretive, secret_login: str, way: str, trouble: str
) -> None:
    url = {
        "wrong password": secret_login.replace("user-", "nobody-"),
        "not escaped": f"amqp://app:{PASSWORD}@localhost",
        "no scheme": secret_login.replace("amqp://", ""),
    }[trouble]
    secretive.write()
    flags, env = given(way, url, secretive.folder)
    handle = secretive.start(*flags, **env)
    if trouble == "wrong password":
        handle.wait_output("refused the login of user 'nobody-")
        secretive.look()
        handle.terminate()
        handle.wait()
    else:
        assert handle.wait() == 78
    secretive.assert_silent()


def test_check_prints_receivers_and_no_password(secretive: Secretive, secret_login: str) -> None:
    secretive.write()
    handle = secretive.start("--broker", secret_login, "--check")
    assert handle.wait() == 0
    assert secretive.name in handle.output()
    secretive.assert_silent()


def test_a_new_password_in_the_file_is_used_at_the_next_connect_and_at_a_reload(
    secretive: Secretive, secret_login: str
) -> None:
    secretive.write()
    flags, _ = given("file", secret_login.replace("user-", "nobody-"), secretive.folder)
    handle = secretive.start(*flags)
    handle.wait_output("refused the login of user 'nobody-")
    new = secretive.folder / "broker.new"
    new.write_text(f"# changed\n{secret_login}\n")
    new.chmod(0o600)
    os.replace(new, secretive.folder / "broker")
    handle.wait_output("event=child_consuming")  # the next child, and no reload: the file is read at its connect
    handle.send(signal.SIGHUP)
    handle.wait_output("event=reload_ok")
    (secretive.folder / "broker").write_text("nonsense\n")
    handle.send(signal.SIGHUP)
    output = handle.wait_output("event=reload_failed")
    assert "broker, line 1, is no valid AMQP URL" in output
    handle.terminate()
    assert handle.wait() == 0
    secretive.assert_silent()


def body(kind: str, name: str) -> bytes:
    event: dict[str, Any] = {"routing_key": f"{name}.a", "data": kind, "uuid_string": f"{name}-{kind}"}
    return json.dumps(event).encode()
