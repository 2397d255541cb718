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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from private_broker.login import LOOPBACK, listens, takes_login
from private_broker.problem import Problem, say
from private_broker.processes import Process, identity, runs, send, wait_gone
from private_broker.source import IMAGE, SYSTEM_PATH, docker

READY_TIMEOUT = 120.0  # seconds; a start takes two to eight, more on a machine under load
STOP_TIMEOUT = 20.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}")


def state_folder() -> Path:
    named = os.environ.get("BROKER_STATE")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(named).absolute() if named else Path(base) / "domain-events" / "brokers"
    if re.search(r"\s", str(folder)):
        raise Problem(f"RabbitMQ's scripts cannot live with blanks in a path; set BROKER_STATE: {folder}")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class Broker:
    """A broker: a folder with its record (`broker.json`), cookie, configuration, data and log."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Problem(f"not a usable name: {name!r}")
        self.name = name
        self.folder = state_folder() / name
        self.record: Record = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # a start that was cut off
            self.record = json.loads((self.folder / "broker.json").read_text())

    def save(self, **changes: Any) -> None:
        self.record.update(changes)
        new = self.folder / "broker.json.new"
        new.write_text(json.dumps(self.record, indent=1))
        new.replace(self.folder / "broker.json")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time for each broker."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @property
    def running(self) -> bool:
        if container := self.record.get("container"):
            return docker("inspect", "--format", "{{.State.Running}}", container, check=False) == "true"
        return runs(self.record.get("node"))

    def info(self) -> Record:
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

    # What the node is told

    def environment(self) -> dict[str, str]:
        """What server and rabbitmqctl have in common. Nothing of the caller's: no RABBITMQ_* may leak in."""
        erl = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
        dist = self.record["dist_port"]
        place = self.folder
        return {
            "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}",
            "LC_ALL": "C.UTF-8",
            "HOME": str(place),  # of the cookie
            "BROKER_FOLDER": str(place),  # by this we know our processes
            "ERL_EPMD_PORT": str(self.record["epmd_port"]),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_INETRC": str(place / "inetrc"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self.record["node_name"],
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
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            # Few threads and no busy waiting: it shares a small machine with the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +SDcpu 2:2 +SDio 4 +sbwt none +sbwtdcpu none"
            f" +sbwtdio none {erl} -sname {self.record['node_name']}"
            f" -kernel inet_dist_listen_min {dist} -kernel inet_dist_listen_max {dist}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 +sbwt none {erl}",
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            "detached": "1",  # makes the script exec: the process we start is the node
        }

    def write_files(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        # `localhost` must be found even where /etc/hosts does not know it.
        (self.folder / "inetrc").write_text(
            '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n'
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.record['port']}\n"
            "vm_memory_high_watermark.relative = 0.6\n"
            "disk_free_limit.absolute = 16MB\n"
            "raft.wal_max_size_bytes = 67108864\n"  # 512 MB unless told: in memory and on disk
            "log.console = false\n"
        )
        for part in ("data", "log"):
            (self.folder / part).mkdir(exist_ok=True)
        self.write_home()

    def write_home(self) -> None:
        """A RabbitMQ home with links to the core's parts alone.

        Erlang looks through every plugin's folder for every module that it loads: without the unused ones a start
        costs half.
        """
        real = Path(self.record["server"]).resolve().parent.parent
        parts = {
            path.name.rpartition("-")[0]: path for path in (real / "plugins").glob("*-*/") if path.is_dir()
        }
        home, needed, todo = self.folder / "home", set(), ["rabbit", "rabbitmq_prelaunch"]
        while todo:
            part = todo.pop()
            if part in parts and part not in needed:
                needed.add(part)
                text = (parts[part] / "ebin" / f"{part}.app").read_text()
                for names in re.findall(r"applications\s*,\s*\[([^\]]*)\]", text):
                    todo += re.findall(r"\w+", names)
        (home / "plugins").mkdir(parents=True)
        for link in ("sbin", "escript"):
            (home / link).symlink_to(real / link)
        for part in needed:
            (home / "plugins" / parts[part].name).symlink_to(parts[part])

    # Its life

    def spawn(self, argv: list[str], *, tied: bool) -> Record:
        """A process of this broker; `tied`: it dies with us, even when we are killed."""
        if tied and (setpriv := shutil.which("setpriv")):
            argv = [setpriv, "--pdeathsig", "KILL", *argv]
        with (self.folder / "log" / "output").open("ab") as out:
            process = subprocess.Popen(
                argv,
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        process.returncode = 0  # it outlives this command: no warning about that
        return identity(process.pid)

    def boot(self, *, tied: bool = False) -> None:
        """Starts the broker, new or with its data, and waits for it to take a login."""
        limit = time.monotonic() + READY_TIMEOUT
        if container := self.record.get("container"):
            docker("start", container)
        else:
            if not runs(self.record.get("epmd")):
                argv = ["epmd", "-address", LOOPBACK, "-port", str(self.record["epmd_port"])]
                self.save(epmd=self.spawn(argv, tied=tied))
                while not listens(self.record["epmd_port"]):
                    if not runs(self.record["epmd"]) or time.monotonic() > limit:
                        raise Problem(f"epmd did not start:\n{self.last_words()}")
                    time.sleep(0.02)
            home = self.folder / "home"
            own = {"RABBITMQ_SCRIPTS_DIR": str(home / "sbin"), "RABBITMQ_PLUGINS_DIR": str(home / "plugins")}
            argv = ["env", *(f"{name}={value}" for name, value in own.items()), self.record["server"]]
            self.save(node=self.spawn(argv, tied=tied))
        while not takes_login(self.record["port"]):
            if not self.running:
                raise Problem(f"{self.name} ended while it started:\n{self.last_words()}")
            if time.monotonic() > limit:
                raise Problem(f"{self.name} was not ready after {READY_TIMEOUT:g} s:\n{self.last_words()}")
            time.sleep(0.1)

    def last_words(self) -> str:
        if container := self.record.get("container"):
            return docker("logs", "--tail", "20", container, check=False)
        lines = []
        for name in ("output", "rabbit.log"):
            with contextlib.suppress(OSError):
                lines += (self.folder / "log" / name).read_text(errors="replace").splitlines()
        errors = [line for line in lines if "[error]" in line]
        return "\n".join(errors[:15] or lines[-15:])

    def processes(self) -> list[Record]:
        """All of this broker's: node, epmd, Erlang's helpers, and what a start that was cut off left."""
        mark = f"BROKER_FOLDER={self.folder}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    process = identity(int(entry))  # first: the environment read next is of this process
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") and runs(process):
                        found.append(process)
        return found

    def kill(self, *, keep_epmd: bool = False) -> None:
        """SIGKILL to all of it."""
        if container := self.record.get("container"):
            docker("kill", container, check=False)
            return
        epmd = self.record.get("epmd")
        send(self.record.get("node"), signal.SIGKILL)
        for _ in range(10):  # a helper may have been forked while we looked
            left = [process for process in self.processes() if not keep_epmd or process != epmd]
            if not left:
                return
            for process in left:
                send(process, signal.SIGKILL)
            wait_gone(left, 5)
        raise Problem(
            f"these processes of {self.name} cannot be killed: {[process['pid'] for process in left]}"
        )

    def shut_down(self) -> None:
        """Asks it to stop in good order."""
        if container := self.record.get("container"):
            docker("stop", container, check=False)
        elif runs(self.record.get("node")):
            send(self.record["node"], signal.SIGTERM)
            if not wait_gone([self.record["node"]], STOP_TIMEOUT):
                say(f"{self.name} did not stop within {STOP_TIMEOUT:g} s: killed")
            self.kill(keep_epmd=True)

    def remove(self) -> None:
        """Ends it with its data. There is nothing to save, so it is not asked."""
        self.kill()
        if container := self.record.get("container"):
            docker("rm", "--force", "--volumes", container, check=False)
        shutil.rmtree(self.folder)
