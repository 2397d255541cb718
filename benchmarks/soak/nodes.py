"""The broker of a soak: its nodes, as `bin/broker` starts, kills and pauses them.

Another command with the same interface can be named by the environment's SOAK_BROKER.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = Path(os.environ.get("SOAK_BROKER") or ROOT / "bin" / "broker")
NAME = "soak"
LONGEST = 240.0
"""Seconds that one command may take."""


class NodeError(RuntimeError):
    """The broker does not do as it is told: nothing can be said about events then."""


class Nodes:
    """Numbered from 1. Methods return when it is done."""

    def __init__(self, state: Path, version: str | None, count: int) -> None:
        """`version`: None for the machine's own."""
        self._state = state
        self._version = version
        self.count = count
        self.urls: list[str] = []

    def start(self) -> None:
        options = ["--name", NAME]
        if self._version is not None:
            options += ["--version", self._version]
        if self.count > 1:
            options += ["--nodes", str(self.count)]
        env: dict[str, str] = json.loads(self._run("start", *options, "--json"))["env"]
        self.urls = (env.get("AMQP_URLS") or env["AMQP_URL"]).split(",")
        if len(self.urls) != self.count:
            raise NodeError(f"{COMMAND} has started {len(self.urls)} nodes, not {self.count}")

    def kill(self, node: int) -> None:
        """SIGKILL."""
        self._run("kill", *self._named(node))

    def stop(self, node: int) -> None:
        """In good order."""
        self.ctl(node, "shutdown")  # waits for its end, unlike `stop`

    def restart(self, node: int) -> None:
        self._run("restart", *self._named(node))

    def pause(self, node: int) -> None:
        """SIGSTOP."""
        self._run("pause", NAME, str(node))

    def resume(self, node: int) -> None:
        self._run("resume", NAME, str(node))

    def block(self, node: int) -> None:
        """A memory alarm: the whole cluster takes nothing from those who publish."""
        self.ctl(node, "set_vm_memory_high_watermark", "0.00001")

    def unblock(self, node: int) -> None:
        self.ctl(node, "set_vm_memory_high_watermark", "0.6")

    def close_connections(self, node: int) -> None:
        self.ctl(node, "close_all_connections", "soak")

    def queues(self) -> dict[str, int]:
        """How many events each holds, ready or in somebody's hands. Up to five seconds late for quorum queues."""
        rows: Any = json.loads(self.ctl(1, "--silent", "list_queues", "name", "messages", "--formatter", "json"))
        return {row["name"]: int(row["messages"] or 0) for row in rows}

    def ctl(self, node: int, *args: str) -> str:
        return self._run("ctl", *self._named(node), "--", *args)

    def remove(self) -> None:
        """With all its data."""
        if (self._state / NAME).exists():
            self._run("stop", NAME)

    def _named(self, node: int) -> list[str]:
        return [NAME] if self.count == 1 else [NAME, str(node)]

    def _run(self, *args: str) -> str:
        self._state.mkdir(exist_ok=True)
        try:
            done = subprocess.run(
                [sys.executable, COMMAND, *args],
                env={**os.environ, "BROKER_STATE": str(self._state)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"{COMMAND.name} {' '.join(args)} has not ended within {LONGEST:g} s") from None
        if done.returncode:
            raise NodeError(f"{COMMAND.name} {' '.join(args)} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout
