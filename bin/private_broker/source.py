"""Where a RabbitMQ comes from: installed, installed now, Docker, or another Debian suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from private_broker.docker import docker, docker_answers
from private_broker.problem import SETUP, SYSTEM_PATH, Problem, say
from private_broker.userland import host_suite, provide_userland, rabbitmq_home

IMAGE = "rabbitmq:4"
# The Debian suites that carry these versions; sid moves.
SUITES = {"3.10": "bookworm", "4.0": "trixie", "4.3": "sid"}
# The packages' commands in PATH are wrappers that change to the user and folders of the system's broker.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")


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


def provide_source(version: str | None = None, *, plain: bool = True, management: bool = False) -> Source:
    """A RabbitMQ of this version, any when None: installed, else by Docker, else out of another Debian suite.

    `plain`: one node without TLS, for which Docker does.
    """
    wanted = f"RabbitMQ {version}" if version else "RabbitMQ"
    have = _installed_now(version)
    if have and fits(have.version, version):
        return have
    reasons = [f"RabbitMQ {have.version} is installed" if have else "none is installed"]
    if not docker_answers():
        reasons.append("no Docker engine answers")
    elif not plain:
        reasons.append("what Docker starts here is one node without TLS")
    else:
        image = (f"rabbitmq:{version}" if version else IMAGE) + ("-management" if management else "")
        say(f"looks for {image} (the first time Docker downloads it) ...")
        if docker("image", "inspect", image, check=False) or docker("pull", "--quiet", image, check=False):
            return Source(version=version, image=image)
        reasons.append(f"Docker cannot get {image}")
    if version:
        try:
            return _of_another_suite(version)
        except Problem as problem:
            reasons.append(str(problem))
    helps = "root on Debian or Ubuntu" if version else "apt-get install rabbitmq-server"
    raise Problem(
        f"there is no {wanted} to be had: {'; '.join(reasons)}.\nOne of these helps:\n"
        f"  {helps:36} ({'debootstrap makes it a userland' if version else 'Debian, Ubuntu; as root. 3.10 or newer'})\n"
        "  a Docker engine that this user may use\n"
        "  AMQP_URL=amqp://user:password@host/  (a broker that you have; for bin/test and bin/demo)"
    )


def fits(full: str | None, version: str | None) -> bool:
    return version is None or (full is not None and f"{full}.".startswith(f"{version}."))


def _installed_now(version: str | None) -> Source | None:
    """The installed RabbitMQ; installed now, when there is none and this system's own is good enough."""
    if (server := find_server()) or (version and SUITES[version] != host_suite()):
        return installed(server) if server else None
    if shutil.which("apt-get", path=SYSTEM_PATH):
        # Needs root, and says so when it cannot have it. Its words are progress: not for our standard output.
        subprocess.run([SETUP, "packages", "rabbitmq-server"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    return installed(server) if (server := find_server()) else None


def _of_another_suite(version: str) -> Source:
    root = provide_userland(SUITES[version])
    home = rabbitmq_home(root)
    full = version_of(root / home.relative_to("/"))
    if not fits(full, version):
        say(f"Debian {SUITES[version]} had RabbitMQ {full} when it was prepared, not {version}: {full} is used")
    return Source(version=full, server=str(home / "sbin" / "rabbitmq-server"), home=str(home), root=str(root))


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
