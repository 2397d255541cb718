"""A private broker: its folder, and the life of its nodes as one cluster."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from private_broker import tls
from private_broker.configuration import Record, broker_mark, environment, write_files
from private_broker.container import Container
from private_broker.login import LOOPBACK, listens, login
from private_broker.node import Node, spawn, tail
from private_broker.ports import Ports
from private_broker.problem import Problem
from private_broker.processes import kill_marked, runs
from private_broker.source import Source

READY_TIMEOUT = 120.0  # seconds; a start takes two to eight, more on a machine under load
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
        self.record: Record = {"nodes": []}
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
    def nodes(self) -> list[Node | Container]:
        kind = Container if self.record.get("container") else Node
        return [kind(self.folder, self.record, entry) for entry in self.record["nodes"]]

    def chosen(self, number: int | None) -> list[Node | Container]:
        """The node of this number; None: all."""
        nodes = [node for node in self.nodes if number in (None, node.number)]
        if not nodes and number is not None:
            raise Problem(f"{self.name} has no node {number}")
        return nodes

    @property
    def ports(self) -> set[int]:
        """All that this broker has."""
        shared = {self.record["epmd_port"]} if "epmd_port" in self.record else set()
        return shared.union(*({v for k, v in entry.items() if k.endswith("port")} for entry in self.record["nodes"]))

    def info(self) -> dict[str, Any]:
        """What `--json` tells."""
        nodes = []
        for node, entry in zip(self.nodes, self.record["nodes"], strict=True):
            known = {"number": node.number, "state": node.state, "pid": node.pid, "port": entry["port"]}
            known |= {"url": f"amqp://guest:guest@{LOOPBACK}:{entry['port']}/%2F", "log": str(node.log)}
            if "tls_port" in entry:
                known["tls_url"] = f"amqps://guest:guest@localhost:{entry['tls_port']}/%2F"
            if "management_port" in entry:
                known["management_url"] = f"http://{LOOPBACK}:{entry['management_port']}"
            nodes.append(known)
        first: dict[str, Any] = nodes[0] if nodes else {}  # none: of a start that was cut off
        return {
            "name": self.name,
            "version": self.record.get("version"),
            "url": first.get("url"),
            "port": first.get("port"),
            "running": bool(nodes) and all(node["state"] != "down" for node in nodes),
            "pid": first.get("pid"),
            "container": self.record.get("container"),
            "folder": str(self.folder),
            "log": first.get("log"),
            "nodes": nodes,
            "env": self._env(nodes) if nodes else {},
        }

    # Its life

    def plan(self, ports: Ports, port: int | None, *, nodes: int, **choices: Any) -> None:
        """Makes the folder, with ports for all. `choices`: tls, management, conf."""
        extra = [f"{part}_port" for part in ("tls", "management") if choices[part]]
        entries = []
        for number in range(1, nodes + 1):
            first = ports.take(port) if port and number == 1 else ports.pick()
            entry = {"number": number, "name": f"{self.name}-{number}@localhost", "port": first}
            entries.append(entry | {key: ports.pick() for key in ("dist_port", *extra)})
        self.folder.mkdir(mode=0o700)
        self.save(epmd_port=ports.pick(), nodes=entries, **choices)

    def install(self, source: Source) -> None:
        """Writes what the broker needs before its first start."""
        self.save(**source.record())
        if source.image is None:
            write_files(self.folder, self.record)
            return
        # The name first: a start that is cut off leaves something to clear away.
        self.save(container=f"domain-events-{self.name}-{secrets.token_hex(4)}")
        for node in self.nodes:
            assert isinstance(node, Container)
            node.create()

    def boot(self, nodes: Sequence[Node | Container] | None = None, *, tied: bool = False) -> None:
        """Starts them (all, unless told), new or with their data, and waits until they take logins.

        `tied`: they end when we do.
        """
        limit = time.monotonic() + READY_TIMEOUT
        if not self.record.get("container"):
            self._boot_epmd(limit, tied=tied)
        nodes = self.nodes if nodes is None else nodes
        # The first time the first has to be there for the others to join it. Later they come together: none may be
        # ready before most of them are there.
        new = not self.record.get("formed")
        for group in (nodes[:1], nodes[1:]) if new else (nodes,):
            for node in group:
                node.start(tied=tied)
                self.save()
            self._wait_ready(group, limit)
        if new and len(nodes) > 1 and nodes[0].tool(["await_online_nodes", str(len(nodes)), "-t", "60"], quiet=True):
            raise Problem(f"the nodes of {self.name} are not one cluster:\n{nodes[-1].last_words()}")
        told = login(self.record["nodes"][0]["port"]) if new else None
        self.save(formed=True, version=told or self.record["version"])

    def kill(self) -> None:
        """SIGKILL to all nodes and all that belongs to them, at once."""
        if self.record.get("container"):
            for node in self.nodes:
                node.kill()
        else:
            kill_marked(broker_mark(self.folder), self.name)

    def remove(self) -> None:
        """Ends it, with its data. There is nothing to save, so it is not asked."""
        if self.record.get("container"):
            for node in self.nodes:
                assert isinstance(node, Container)
                node.remove()
        else:
            self.kill()
        shutil.rmtree(self.folder)

    # What it is made of

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):  # of a start that was cut off
            self.record = {"nodes": []} | json.loads((self.folder / "broker.json").read_text())

    def _env(self, nodes: list[dict[str, Any]]) -> dict[str, str]:
        env = {"AMQP_URL": nodes[0]["url"], "AMQP_URLS": ",".join(node["url"] for node in nodes)}
        if self.record["tls"]:
            urls = [node["tls_url"] for node in nodes]
            files = {"CAFILE": tls.CA, "CERTFILE": tls.CLIENT, "KEYFILE": tls.CLIENT_KEY}
            env |= {"AMQPS_URL": urls[0], "AMQPS_URLS": ",".join(urls)}
            env |= {f"AMQPS_{key}": str(self.folder / "tls" / name) for key, name in files.items()}
        if self.record["management"]:
            env["MANAGEMENT_URL"] = nodes[0]["management_url"]
        return {**env, "BROKER_NAME": self.name}

    def _boot_epmd(self, limit: float, *, tied: bool) -> None:
        """The name service of Erlang nodes; ours knows these nodes alone."""
        port = self.record["epmd_port"]
        if runs(self.record.get("epmd")):
            return
        env = environment(self.folder, self.record, self.record["nodes"][0])
        argv, output = ["epmd", "-address", LOOPBACK, "-port", str(port)], self.folder / "log" / "epmd"
        self.save(epmd=spawn(self.folder, self.record, argv, env, output, tied=tied))
        while not listens(port):
            if not runs(self.record["epmd"]) or time.monotonic() > limit:
                raise Problem(f"epmd did not start:\n{tail(output)}")
            time.sleep(0.02)

    def _wait_ready(self, nodes: Sequence[Node | Container], limit: float) -> None:
        waiting = list(nodes)
        while waiting := [node for node in waiting if not node.ready]:
            for node in waiting:
                if node.state == "down":
                    raise Problem(f"{node.label} ended while it started:\n{node.last_words()}")
                if time.monotonic() > limit:
                    raise Problem(f"{node.label} was not ready after {READY_TIMEOUT:g} s:\n{node.last_words()}")
            time.sleep(0.1)
