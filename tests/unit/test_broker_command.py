"""bin/broker: private brokers that come, fall, come back and leave nothing."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pika
import pytest

from tests.brokers import COMMAND, Broker, Queues
from tests.processes import Processes
from tests.waiting import wait_until


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The brokers of this test alone; what is left of them is ended."""
    monkeypatch.setenv("BROKER_STATE", str(tmp_path / "brokers"))
    return tmp_path / "brokers"


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a room of the command, which no package can see."""
    monkeypatch.syspath_prepend(str(COMMAND.parent))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"private_broker.{name}")

    return load


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMMAND, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
    )


def processes_of(folder: Path) -> list[int]:
    """Whoever names the folder on his command line or in his environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"{folder}/".encode() in known:
                found.append(int(entry.name))
    return found


# --- the parts -------------------------------------------------------------------------------------------


def test_a_signal_goes_only_to_the_process_that_was_written_down(room: Any) -> None:
    rooms = room("processes")
    with subprocess.Popen(["sleep", "60"]) as process:
        recorded = rooms.identity(process.pid)
        for forged in ({**recorded, "started": "1"}, {**recorded, "boot": "yesterday"}):
            assert not rooms.runs(forged)
            rooms.send(forged, signal.SIGKILL)
        assert process.poll() is None
        rooms.send(recorded, signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL
    assert not rooms.runs(recorded)
    rooms.send(recorded, signal.SIGKILL)  # nobody is there: nothing happens


def test_the_script_is_found_beside_the_packages_wrapper(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "sbin").mkdir()
    for program in ("rabbitmq-server", "rabbitmq-script-wrapper"):
        (tmp_path / "lib" / program).touch(0o755)
    (tmp_path / "sbin" / "rabbitmq-server").symlink_to(tmp_path / "lib" / "rabbitmq-script-wrapper")
    monkeypatch.setenv("PATH", str(tmp_path / "sbin"))
    assert room("source").find_server(known=()) == tmp_path / "lib" / "rabbitmq-server"


def test_a_port_that_only_listens_takes_no_login(room: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            server.accept()[0].close()

        closing = threading.Thread(target=hang_up)
        closing.start()
        assert not room("login").takes_login(port)
        closing.join()
    assert not room("login").takes_login(port)


@pytest.mark.owns_broker
def test_without_a_server_docker_has_to_do(
    room: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    # A docker that writes down what is said to it; what answers on the port is the broker of the session.
    said = tmp_path / "said"
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$*" >> {said}\n[ "$1" != inspect ] || echo running\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    port = pika.URLParameters(broker.urls[0]).port

    class Given:
        def take(self, port: int) -> int:
            return port

        def pick(self) -> int:
            return port

    started = room("cluster").Broker("d")
    started.folder.parent.mkdir(exist_ok=True)
    started.plan(Given(), port, nodes=1, tls=False, management=False, conf=[("heartbeat", "5")])
    started.install(room("source").Source(version=None, image="rabbitmq:4"))
    started.boot()
    [node] = started.nodes
    assert node.state == "running"
    started.kill()
    started.boot()
    assert node.tool(["status"]) == 0
    started.remove()
    assert not started.folder.exists()
    container = started.record["container"]
    assert container.startswith("domain-events-d-")
    conf = started.folder / "rabbitmq.conf"
    assert said.read_text().splitlines() == [
        f"create --name {container} --hostname broker --publish 127.0.0.1:{port}:5672 rabbitmq:4",
        f"cp {conf} {container}:/etc/rabbitmq/conf.d/90-broker.conf",
        f"start {container}",
        f"inspect --format {{{{.State.Status}}}} {container}",
        f"kill {container}",
        f"start {container}",
        f"exec {container} rabbitmqctl status",
        f"rm --force --volumes {container}",
    ]


@pytest.mark.parametrize(
    "args",
    [(), ("run",), ("run", "--"), ("ctl", "x"), ("stop",), ("stop", "x", "--all"), ("status", "--", "x")],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2(state: Path, args: tuple[str, ...]) -> None:
    assert command(*args).returncode == 2
    assert not state.exists()


@pytest.mark.parametrize("verb", ["stop", "kill", "restart"])
def test_a_broker_that_is_not_there_is_named(state: Path, verb: str) -> None:
    done = command(verb, "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no broker called nobody" in done.stderr


def test_a_name_cannot_leave_the_folder(state: Path) -> None:
    assert "not a usable name" in command("stop", "../x").stderr


# --- a whole life (a few seconds each) -------------------------------------------------------------------


@pytest.mark.owns_broker
def test_a_broker_falls_comes_back_with_its_data_and_leaves_nothing(state: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = 'eval "$("$1" "$2" start --name one)" && printf "%s\\n" "$AMQP_URL" "$BROKER_NAME"'
    started = subprocess.run(
        ["sh", "-euc", script, "sh", sys.executable, COMMAND],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HOME": str(home)},
    )
    try:
        url, name = started.stdout.splitlines()
        assert name == "one"
        assert "takes logins" in started.stderr
        assert "one exists already" in command("start", "--name", "one").stderr
        [info] = json.loads(command("status", "--json").stdout)
        assert (info["name"], info["url"], info["running"]) == ("one", url, True)
        assert info["env"] == {"AMQP_URL": url, "AMQP_URLS": url, "BROKER_NAME": "one"}

        queues = Queues(url)
        queue = queues.declare_watch("#", durable=True)
        queues.publish("some.thing", b"{}")
        queues.wait_count(queue, 1)
        assert command("kill", "one").returncode == 0
        [info] = json.loads(command("status", "--json").stdout)
        assert (info["running"], info["pid"]) == (False, None)
        assert processes_of(state / "one") == []
        assert "down already" in command("kill", "one").stderr

        assert command("restart", "one").returncode == 0
        queues.wait_count(queue, 1)
        assert queue in command("ctl", "one", "--", "-q", "list_queues", "name").stdout
        assert command("ctl", "one", "--", "nonsense").returncode != 0
        queues.abandon()
    finally:
        assert command("stop", "one").returncode == 0
    assert processes_of(state / "one") == []
    assert not (state / "one").exists()
    assert list(home.iterdir()) == []


@pytest.mark.owns_broker
def test_run_hands_over_the_url_and_returns_the_commands_status(state: Path) -> None:
    done = command("run", "--name", "two", "--", "sh", "-c", 'echo "$BROKER_NAME $AMQP_URL"; exit 7')
    assert done.returncode == 7
    assert done.stdout.startswith("two amqp://guest:guest@127.0.0.1:")
    assert not (state / "two").exists()
    assert command("run", "--", "no-such-command").returncode == 1
    assert json.loads(command("status", "--json").stdout) == []


@pytest.mark.owns_broker
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_run_that_is_told_to_stop_stops_the_command_and_the_broker(
    state: Path, processes: Processes, signum: int
) -> None:
    running = processes.start([sys.executable, COMMAND, "run", "--", "sh", "-c", "echo up; exec sleep 100"])
    running.wait_output("up")
    running.send(signum)
    assert running.wait(20) == 128 + signum
    assert processes_of(state / "broker-1") == []
    assert not (state / "broker-1").exists()


@pytest.mark.owns_broker
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
def test_run_that_is_killed_takes_the_broker_with_it(state: Path, processes: Processes) -> None:
    running = processes.start([sys.executable, COMMAND, "run", "--", "sh", "-c", "echo up; exec sleep 100"])
    running.wait_output("up")
    assert processes_of(state / "broker-1")
    running.kill()
    running.wait()
    wait_until(lambda: not processes_of(state / "broker-1"), what="the end of its processes")
    assert command("stop", "--all").returncode == 0
    assert not (state / "broker-1").exists()
