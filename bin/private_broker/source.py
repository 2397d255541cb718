"""Where a RabbitMQ comes from: installed, installed now, or Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from private_broker.problem import Problem, say

IMAGE = "rabbitmq:4"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The packages' commands in PATH are wrappers that change to the user and folders of the system's broker.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
SETUP = Path(__file__).resolve().parent.parent / "setup"


def find_server() -> Path | None:
    """The script that starts an installed RabbitMQ without changing users, or None."""
    on_path = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    # Beside the packages' wrapper, once the links are followed, lies the script itself.
    beside = [str(Path(on_path).resolve().with_name("rabbitmq-server"))] if on_path else []
    return next((Path(path) for path in (*SERVERS, *beside) if os.access(path, os.X_OK)), None)


def provide_server() -> Path | None:
    """An installed RabbitMQ, installed now if need be; None: Docker has to do."""
    if server := find_server():
        return server
    reason = "no RabbitMQ is installed"
    if shutil.which("apt-get", path=SYSTEM_PATH):
        setup = Path(__file__).resolve().with_name("setup")
        # It needs root and says so when it cannot have it. Its words are progress: not for our standard output.
        if subprocess.run([setup, "packages", "rabbitmq-server"], stdout=sys.stderr).returncode == 0:
            if server := find_server():
                return server
        reason += ", and installing the package rabbitmq-server failed (see above)"
    if docker("info", "--format", "{{.ServerVersion}}", check=False):
        return None
    raise Problem(
        f"{reason}, and no Docker engine answers.\n"
        "Install RabbitMQ 3.10 or newer (Debian, Ubuntu: `apt-get install rabbitmq-server` as root), or start Docker,\n"
        "or set AMQP_URL to a broker that you have (bin/test accepts that)."
    )


def docker(*args: str, check: bool = True) -> str:
    """What docker prints; with check=False '' when there is no Docker or it fails."""
    try:
        done = subprocess.run(["docker", *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        done = subprocess.CompletedProcess([], 127, "", str(error))
    if done.returncode == 0:
        return done.stdout.strip()
    if check:
        raise Problem(f"docker {args[0]} failed: {done.stderr.strip()}")
    return ""
