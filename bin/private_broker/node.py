"""One private broker: its folder, what its node is told, its life."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from private_broker.login import LOOPBACK, listens, takes_login
from private_broker.problem import Problem, say
from private_broker.processes import Process, identity, marked, runs, send, wait_gone
from private_broker.source import IMAGE, SYSTEM_PATH, docker

READY_TIMEOUT = 120.0  # seconds; a start takes two to eight, more on a machine under load
STOP_TIMEOUT = 20.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}")


def state_folder() -> Path:
    """Where the brokers of this user live."""
    named = os.environ.get("BROKER_STATE")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(named).absolute() if named else Path(base) / "domain-events" / "brokers"
    if re.search(r"\s", str(folder)):
        raise Problem(f"RabbitMQ's scripts need a path without blanks; set BROKER_STATE to one: {folder}")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class Broker:
    """A folder with a record (`broker.json`), cookie, configuration, data and log; and what runs for it."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Problem(f"not a usable name: {name!r}")
        self.name = name
        self.folder = state_folder() / name
        self.record: dict[str, Any] = {}
        self._load()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time for each broker, with the record as the one before left it."""
        try:
            handle = os.open(self.folder, os.O_RDONLY)
        except FileNotFoundError:
            raise Problem(f"no broker called {self.name} in {self.folder.parent}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._load()
            yield
        finally:
            os.close(handle)

    def save(self, **changes: Any) -> None:
        self.record.update(changes)
        new = self.folder / "broker.json.new"
        new.write_text(json.dumps(self.record, indent=1))
        new.replace(self.folder / "broker.json")

    @property
    def running(self) -> bool:
        if container := self.record.get("container"):
            return docker("inspect", "--format", "{{.State.Running}}", container, check=False) == "true"
        return runs(self.record.get("node"))

    def info(self) -> dict[str, Any]:
        """What `--json` tells."""
        url = f"amqp://guest:guest@{LOOPBACK}:{self.record.get('port')}/%2F"
        running = self.running
        return {
            "name": self.name,
            "url": url,
            "port": self.record.get("port"),
            "running": running,
            "pid": (self.record.get("node") or {}).get("pid") if running else None,
            "container": self.record.get("container"),
            "folder": str(self.folder),
            "log": str(self.folder / "log" / "rabbit.log"),
            "env": {"AMQP_URL": url, "BROKER_NAME": self.name},
        }

    # Its life

    def install(self, server: Path | None) -> None:
        """Writes what the broker needs before its first start. `server` None: a container."""
        if server:
            self.save(server=str(server))
            self._write_files()
            return
        container = f"domain-events-{self.name}-{secrets.token_hex(4)}"
        self.save(container=container)  # first: a start that is cut off leaves a name to clear away
        say(f"Docker gets {IMAGE} (once) ...")
        # The data's place is named after the host, so that must stay the same over restarts.
        publish = f"{LOOPBACK}:{self.record['port']}:5672"
        docker("create", "--name", container, "--hostname", "broker", "--publish", publish, IMAGE)

    def boot(self, *, tied: bool = False) -> None:
        """Starts it, new or with its data, and waits for it to take a login. `tied`: it ends when we do."""
        limit = time.monotonic() + READY_TIMEOUT
        if container := self.record.get("container"):
            docker("start", container)
        else:
            self._boot_epmd(limit, tied=tied)
            home = self.folder / "home"
            ours = {"RABBITMQ_SCRIPTS_DIR": str(home / "sbin"), "RABBITMQ_PLUGINS_DIR": str(home / "plugins")}
            self.save(node=self._spawn([self.record["server"]], ours if home.exists() else {}, tied=tied))
        while not takes_login(self.record["port"]):
            if not self.running:
                raise Problem(f"{self.name} ended while it started:\n{self._last_words()}")
            if time.monotonic() > limit:
                raise Problem(f"{self.name} was not ready after {READY_TIMEOUT:g} s:\n{self._last_words()}")
            time.sleep(0.1)

    def shut_down(self) -> None:
        """Asks it to stop in good order, and keeps the data."""
        if container := self.record.get("container"):
            docker("stop", container)
        elif runs(self.record.get("node")):
            send(self.record["node"], signal.SIGTERM)
            if not wait_gone([self.record["node"]], STOP_TIMEOUT):
                say(f"{self.name} did not stop within {STOP_TIMEOUT:g} s: killed")
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the node and all that belongs to it."""
        if container := self.record.get("container"):
            docker("kill", container, check=False)
            return
        send(self.record.get("node"), signal.SIGKILL)
        left: list[Process] = []
        for _ in range(10):  # a helper may have been forked while we looked
            left = marked(self._mark)
            if not left:
                return
            for process in left:
                send(process, signal.SIGKILL)
            wait_gone(left, 5)
        raise Problem(f"processes of {self.name} that do not die: {[process['pid'] for process in left]}")

    def remove(self) -> None:
        """Ends it, with its data. There is nothing to save, so it is not asked."""
        if container := self.record.get("container"):
            docker("rm", "--force", "--volumes", container)
        else:
            self.kill()
        shutil.rmtree(self.folder)

    def ctl(self, args: list[str]) -> int:
        """Runs rabbitmqctl; its exit status."""
        if container := self.record.get("container"):
            return subprocess.run(["docker", "exec", container, "rabbitmqctl", *args]).returncode
        program = Path(self.record["server"]).with_name("rabbitmqctl")
        return subprocess.run([program, *args], env=self._environment(), cwd=self.folder).returncode

    # What it is made of

    @property
    def _mark(self) -> str:
        return f"PRIVATE_BROKER={self.folder}"

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):  # of a start that was cut off
            self.record = json.loads((self.folder / "broker.json").read_text())

    def _environment(self) -> dict[str, str]:
        """What server and rabbitmqctl have in common. Nothing of the caller's: no RABBITMQ_* may leak in."""
        place, node, dist_port = self.folder, self.record["node_name"], self.record["dist_port"]
        loopback = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
        mark, _, marked_as = self._mark.partition("=")
        return {
            mark: marked_as,
            "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}",
            "LC_ALL": "C.UTF-8",
            "HOME": str(place),  # of the cookie
            "ERL_EPMD_PORT": str(self.record["epmd_port"]),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_INETRC": str(place / "inetrc"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_CONF_ENV_FILE": str(place / "none"),  # not the system's in /etc/rabbitmq
            "RABBITMQ_CONFIG_FILE": str(place / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(place / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(place / "data"),
            "RABBITMQ_MNESIA_DIR": str(place / "data" / "db"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(place / "data" / "config"),
            "RABBITMQ_SCHEMA_DIR": str(place / "data" / "schema"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(place / "data" / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(place / "data" / "feature_flags"),
            "RABBITMQ_PID_FILE": str(place / "data" / "pid"),
            "RABBITMQ_LOG_BASE": str(place / "log"),
            "RABBITMQ_LOGS": str(place / "log" / "rabbit.log"),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            # Few threads and no busy waiting: it shares a small machine with the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +SDcpu 2:2 +SDio 4"
            f" +sbwt none +sbwtdcpu none +sbwtdio none {loopback} -sname {node}"
            f" -kernel inet_dist_listen_min {dist_port} inet_dist_listen_max {dist_port}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 +sbwt none {loopback}",
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            "detached": "1",  # makes the script exec: the process that we start is the node
        }

    def _write_files(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        # `localhost` must be found even where /etc/hosts does not know it.
        hosts = '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n'
        (self.folder / "inetrc").write_text(hosts)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.record['port']}\n"
            "vm_memory_high_watermark.relative = 0.6\n"
            "disk_free_limit.absolute = 16MB\n"
            "raft.wal_max_size_bytes = 67108864\n"  # 512 MB unless told: in memory and on disk
            "log.console = false\n"
        )
        for part in ("data", "log"):
            (self.folder / part).mkdir()
        self._write_home()

    def _write_home(self) -> None:
        """A RabbitMQ home with links to the parts of the core alone.

        Erlang looks into every plugin's folder for every module that it loads: without the unused ones a
        start costs half.
        """
        real = Path(self.record["server"]).resolve().parent.parent
        parts = {path.parent.parent.name.rpartition("-")[0]: path for path in real.glob("plugins/*/ebin/*.app")}
        needed, todo = set(), ["rabbit", "rabbitmq_prelaunch"]
        if not parts.keys() >= set(todo):
            return  # laid out in some other way: it starts with all its plugins
        while todo:
            part = todo.pop()
            if part in parts and part not in needed:
                needed.add(part)
                for names in re.findall(r"applications\s*,\s*\[([^\]]*)\]", parts[part].read_text()):
                    todo += re.findall(r"\w+", names)
        home = self.folder / "home"
        (home / "plugins").mkdir(parents=True)
        for link in ("sbin", "escript"):
            (home / link).symlink_to(real / link)
        for part in needed:
            folder = parts[part].parent.parent
            (home / "plugins" / folder.name).symlink_to(folder)

    def _boot_epmd(self, limit: float, *, tied: bool) -> None:
        """The name service of Erlang nodes; ours knows this node alone."""
        port = self.record["epmd_port"]
        if runs(self.record.get("epmd")):
            return
        self.save(epmd=self._spawn(["epmd", "-address", LOOPBACK, "-port", str(port)], {}, tied=tied))
        while not listens(port):
            if not runs(self.record["epmd"]) or time.monotonic() > limit:
                raise Problem(f"epmd did not start:\n{self._last_words()}")
            time.sleep(0.02)

    def _spawn(self, argv: list[str], extra: Mapping[str, str], *, tied: bool) -> Process:
        if tied and (setpriv := shutil.which("setpriv")):
            argv = [setpriv, "--pdeathsig", "KILL", *argv]  # even when we are killed
        with (self.folder / "log" / "output").open("ab") as out:
            process = subprocess.Popen(
                argv,
                env={**self._environment(), **extra},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        process.returncode = 0  # it outlives this command: no warning about that
        return identity(process.pid)

    def _last_words(self) -> str:
        if container := self.record.get("container"):
            return docker("logs", "--tail", "20", container, check=False)
        lines: list[str] = []
        for name in ("output", "rabbit.log"):
            with contextlib.suppress(OSError):
                lines += (self.folder / "log" / name).read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if "[error]" in line][:15] or lines[-15:])
