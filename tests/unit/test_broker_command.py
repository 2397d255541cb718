"""bin/broker: private brokers that come, fall, come back and leave nothing."""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pika
import pytest

from tests.brokers import COMMAND, Broker, Queues, owns_broker
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
        assert process.wait(60) == -signal.SIGKILL
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


def test_a_login_tells_the_version(room: Any, broker: Broker) -> None:
    properties = Queues(broker.url).channel.connection._impl.server_properties
    assert room("login").login(pika.URLParameters(broker.urls[0]).port) == properties["version"]


@pytest.mark.parametrize(
    ("full", "version", "fits"),
    [("4.3.6", "4.3", True), ("4.30.1", "4.3", False), ("4.0.5", None, True), (None, "4.0", False)],
)
def test_a_version_fits_by_its_first_parts(room: Any, full: str | None, version: str | None, fits: bool) -> None:
    assert room("source").fits(full, version) is fits


def test_another_suite_comes_from_where_apt_gets_its_packages(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").write_text(
        "#!/bin/sh\n"
        "printf 'http://security.example/\\tbookworm-security\\tbookworm-security\\tmain\\n'\n"
        "printf 'http://near.example/debian/\\tbookworm\\toldstable\\tmain\\n'\n"
    )
    (tmp_path / "apt-config").write_text(
        '#!/bin/sh\n[ "$3" != Acquire::http::Proxy ] || echo "PROXY=\'http://proxy.example:3128/\'"\n'
    )
    for program in ("apt-get", "apt-config"):
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for scheme in ("http", "https"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
    userland = room("userland")
    assert userland.mirror({"ID": "debian", "VERSION_CODENAME": "bookworm"}) == "http://near.example/debian/"
    assert userland.mirror({"ID": "ubuntu", "VERSION_CODENAME": "noble"}) == userland.PUBLIC_MIRROR
    assert userland.proxies() == {"http_proxy": "http://proxy.example:3128/"}
    monkeypatch.setenv("http_proxy", "http://mine.example/")
    assert userland.proxies() == {"http_proxy": "http://mine.example/"}


def test_certificates_are_for_this_user_alone(room: Any, tmp_path: Path) -> None:
    tls = room("tls")
    tls.write_certificates(tmp_path / "tls")
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {
        tls.CA, tls.SERVER, tls.SERVER_KEY, tls.CLIENT, tls.CLIENT_KEY
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


def test_a_test_owns_a_broker_that_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AMQP_URLS", "AMQPS_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert owns_broker(["own_queues"])
    assert owns_broker(["broker", "cluster"])
    assert not owns_broker(["broker", "queues"])
    monkeypatch.setenv("AMQP_URLS", "amqp://one")
    assert owns_broker(["cluster"])
    monkeypatch.setenv("AMQP_URLS", "amqp://one,amqp://two")
    assert not owns_broker(["cluster"])
    assert owns_broker(["cluster", "tls_broker"])


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
    [
        (),
        ("run",),
        ("run", "--"),
        ("ctl", "x"),
        ("stop",),
        ("stop", "x", "--all"),
        ("status", "--", "x"),
        ("pause", "x"),
        ("start", "--nodes", "0"),
        ("start", "--conf", "nonsense"),
        ("prepare", "--version", "1.8"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2(state: Path, args: tuple[str, ...]) -> None:
    assert command(*args).returncode == 2
    assert not state.exists()


def test_the_environments_version_is_checked_too(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_VERSION", "1.8")
    done = command("start")
    assert done.returncode == 2
    assert "'1.8' is none of 3.10, 4.0, 4.3" in done.stderr


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
    assert running.wait() == 128 + signum
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


def states(name: str) -> dict[int, tuple[str, int | None]]:
    """The state and pid of each node."""
    [info] = [info for info in json.loads(command("status", "--json").stdout) if info["name"] == name]
    return {node["number"]: (node["state"], node["pid"]) for node in info["nodes"]}


@pytest.mark.owns_broker
def test_each_node_of_a_cluster_falls_hangs_and_comes_back_by_itself(state: Path) -> None:
    options = ("--nodes", "2", "--tls", "--management", "--conf", "heartbeat = 7")
    done = command("start", "--name", "c", "--json", *options)
    try:
        assert done.returncode == 0, done.stderr
        info = json.loads(done.stdout)
        env = info["env"]
        assert info["version"].count(".") == 2
        assert env["AMQP_URLS"].split(",") == [node["url"] for node in info["nodes"]]
        assert env["AMQP_URL"] == info["nodes"][0]["url"]
        before = states("c")
        assert [known for known, _ in before.values()] == ["running", "running"]

        context = ssl.create_default_context(cafile=env["AMQPS_CAFILE"])
        context.load_cert_chain(env["AMQPS_CERTFILE"], env["AMQPS_KEYFILE"])
        for url in env["AMQPS_URLS"].split(","):
            parameters = pika.URLParameters(url)
            parameters.ssl_options = pika.SSLOptions(context, "localhost")
            with pika.BlockingConnection(parameters) as connection:
                assert connection._impl.params.heartbeat == 7
        login = {"Authorization": f"Basic {base64.b64encode(b'guest:guest').decode()}"}
        request = urllib.request.Request(f"{env['MANAGEMENT_URL']}/api/nodes", headers=login)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            assert {node["name"] for node in json.load(answer)} == {"c-1@localhost", "c-2@localhost"}

        assert command("pause", "c", "2").returncode == 0
        wait_until(lambda: states("c")[2] == ("paused", before[2][1]), what="node 2 stands")
        assert command("resume", "c", "2").returncode == 0
        assert states("c") == before
        assert command("kill", "c", "2").returncode == 0
        assert states("c") == {1: before[1], 2: ("down", None)}
        assert "c, node 2 is down" in command("kill", "c", "2").stderr
        assert "c, node 2 is down" in command("pause", "c", "2").stderr
        assert "has no node 3" in command("kill", "c", "3").stderr
        assert command("restart", "c").returncode == 0
        after = states("c")
        assert after[1] == before[1]
        assert after[2][0] == "running"
        assert after[2][1] != before[2][1]
        asked = command("ctl", "c", "2", "--", "rabbitmq-queues", "-q", "check_if_node_is_quorum_critical")
        assert "c-2@localhost" in asked.stdout
    finally:
        assert command("stop", "c").returncode == 0
    assert processes_of(state / "c") == []


def userland() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "domain-events-broker" / "sid"


@pytest.mark.owns_broker
@pytest.mark.skipif(
    bool(os.geteuid()) or not (userland() / "ready").exists(),
    reason="needs root, and `bin/broker prepare --version 4.3`",
)
def test_a_version_of_another_suite_runs_in_a_userland_of_its_own(state: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    script = f'echo "$AMQP_URL"; "{sys.executable}" "{COMMAND}" ctl other -- version'
    done = command("run", "--version", "4.3", "--name", "other", "--", "sh", "-c", script)
    url, version = done.stdout.split()
    assert url.startswith("amqp://guest:guest@127.0.0.1:")
    assert version == (userland() / "ready").read_text().strip().removeprefix("rabbitmq_server-")
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert processes_of(state / "other") == []
    assert not (state / "other").exists()
