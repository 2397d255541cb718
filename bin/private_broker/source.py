"""Where a RabbitMQ comes from: installed, installed now, or Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from private_broker.problem import Problem

IMAGE = "rabbitmq:4"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The packages' commands in PATH are wrappers that change to the user and folders of the system's broker.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
SETUP = Path(__file__).resolve().parent.parent / "setup"


def provide_server() -> Path | None:
    """An installed RabbitMQ, installed now if need be; None: Docker has to do."""
    if server := find_server():
        return server
    reason = "no RabbitMQ is installed"
    if shutil.which("apt-get", path=SYSTEM_PATH):
        # Needs root, and says so when it cannot have it. Its words are progress: not for our standard output.
        subprocess.run([SETUP, "packages", "rabbitmq-server"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if server := find_server():
            return server
        reason += " and it could not be installed (see above)"
    if docker("info", "--format", "{{.ServerVersion}}", check=False):
        return None
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


def docker(*args: str, check: bool = True) -> str:
    """What docker prints; with check=False '' when it fails or is not there."""
    try:
        done = subprocess.run(["docker", *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        done = subprocess.CompletedProcess([], 127, "", str(error))
    if done.returncode == 0:
        return done.stdout.strip()
    if check:
        raise Problem(f"docker {args[0]} failed: {done.stderr.strip()}")
    return ""
