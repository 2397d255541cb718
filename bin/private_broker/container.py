"""The node of a broker that Docker runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from private_broker.configuration import Record
from private_broker.docker import docker
from private_broker.login import LOOPBACK, listens, takes_login

CONFIGURATION = "/etc/rabbitmq/conf.d/90-broker.conf"


class Container:
    """As `node.Node`, for a container."""

    pid = None

    def __init__(self, folder: Path, record: Record, entry: Record) -> None:
        self.number: int = entry["number"]
        self.label = folder.name
        self.log = folder / "log" / "rabbit.log"
        self._name: str = record["container"]
        self._folder = folder
        self._record = record
        self._entry = entry

    def create(self) -> None:
        publish = ["--publish", f"{LOOPBACK}:{self._entry['port']}:5672"]
        if self._record["management"]:
            publish += ["--publish", f"{LOOPBACK}:{self._entry['management_port']}:15672"]
        # The data's place is named after the host, so that must stay the same over restarts.
        docker("create", "--name", self._name, "--hostname", "broker", *publish, self._record["image"])
        if self._record["conf"]:
            conf = self._folder / "rabbitmq.conf"
            conf.write_text("".join(f"{key} = {value}\n" for key, value in self._record["conf"]))
            conf.chmod(0o644)  # its owner in there is another
            docker("cp", str(conf), f"{self._name}:{CONFIGURATION}")

    @property
    def state(self) -> str:
        """running, paused or down."""
        known = docker("inspect", "--format", "{{.State.Status}}", self._name, check=False)
        return known if known in ("running", "paused") else "down"

    @property
    def ready(self) -> bool:
        return takes_login(self._entry["port"]) and (
            not self._record["management"] or listens(self._entry["management_port"])
        )

    def start(self, *, tied: bool) -> None:
        docker("start", self._name)

    def shut_down(self) -> None:
        docker("stop", self._name)

    def kill(self) -> None:
        docker("kill", self._name, check=False)

    def pause(self) -> None:
        docker("pause", self._name)

    def resume(self) -> None:
        docker("unpause", self._name)

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self._name)

    def tool(self, args: list[str], *, quiet: bool = False) -> int:
        program = [] if args and args[0].startswith("rabbitmq") else ["rabbitmqctl"]
        return subprocess.run(["docker", "exec", self._name, *program, *args]).returncode

    def last_words(self) -> str:
        return docker("logs", "--tail", "20", self._name, check=False)
