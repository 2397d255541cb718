"""Docker's command line."""

from __future__ import annotations

import subprocess

from private_broker.problem import Problem


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


def docker_answers() -> bool:
    return bool(docker("info", "--format", "{{.ServerVersion}}", check=False))
