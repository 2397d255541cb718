"""Where a RabbitMQ comes from: installed, installed now, or Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from private_broker.docker import docker_answers
from private_broker.problem import Problem

IMAGE = "rabbitmq:4"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The packages' commands in PATH are wrappers that change to the user and folders of the system's broker.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
SETUP = Path(__file__).resolve().parent.parent / "setup"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A RabbitMQ to run: a server's script and its home, or an image."""

    version: str | None  # 3.10.8
    server: str | None = None
    home: str | None = None
    root: str | None = None  # the userland that server and home are in
    image: str | None = None

    def __str__(self) -> str:
        place = f"Docker ({self.image})" if self.image else f"{self.root or ''}{self.server}"
        return f"RabbitMQ {self.version or 'of an unknown version'}, {place}"

    def record(self) -> dict[str, Any]:
        return asdict(self)


def provide_source(*, docker_will_do: bool = True) -> Source:
    """An installed RabbitMQ, installed now if need be; else Docker has to do: one node, without TLS."""
    if server := find_server():
        return installed(server)
    reason = "no RabbitMQ is installed"
    if shutil.which("apt-get", path=SYSTEM_PATH):
        # Needs root, and says so when it cannot have it. Its words are progress: not for our standard output.
        subprocess.run([SETUP, "packages", "rabbitmq-server"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if server := find_server():
            return installed(server)
        reason += " and it could not be installed (see above)"
    if docker_answers():
        if docker_will_do:
            return Source(version=None, image=IMAGE)
        raise Problem(f"{reason}, and what Docker starts is one node without TLS")
    raise Problem(
        f"{reason}, and no Docker engine answers. One of these helps:\n"
        "  apt-get install rabbitmq-server      (Debian, Ubuntu; as root. 3.10 or newer)\n"
        "  a Docker engine that this user may use\n"
        "  AMQP_URL=amqp://user:password@host/  (a broker that you have; for bin/test and bin/demo)"
    )


def find_server(known: tuple[str, ...] = SERVERS) -> Path | None:
    """The script that starts an installed RabbitMQ without changing users, or None."""
    in_path = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    # Once its links are followed, the wrapper has the script itself for a neighbour.
    beside = [str(Path(in_path).resolve().with_name("rabbitmq-server"))] if in_path else []
    return next((Path(path) for path in (*known, *beside) if os.access(path, os.X_OK)), None)


def installed(server: Path) -> Source:
    """The RabbitMQ that this script starts."""
    home = server.resolve().parent.parent
    return Source(version=version_of(home), server=str(server), home=str(home))


def version_of(home: Path) -> str | None:
    """By the name of the folder or archive of its core."""
    core = next(iter([*home.glob("plugins/rabbit-*")]), None)
    return core.name.removeprefix("rabbit-").removesuffix(".ez") if core else None
