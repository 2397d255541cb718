"""What the child of --http serves, seen from outside: over HTTP, as anybody would."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.acceptance.trouble import DEADLINE, Master

ANY = ("--http", "127.0.0.1:0")
"""A port that is free; the log says which."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """As it goes back."""
        return self.headers["set-cookie"].partition(";")[0]


class Site:
    """It, of a master that runs."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.address: str = master.wait_lines("http_serving")[0]["address"]
        self.host = self.address.rpartition(":")[0].strip("[]")
        self.port = int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pids(self) -> list[int]:
        """Of all children that have served so far, oldest first."""
        return [line["pid"] for line in self.master.lines("http_serving")]

    @property
    def pid(self) -> int:
        return self.pids[-1]

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, object] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        given = dict(headers or {})
        if form is not None:
            method, body = "POST", urlencode(form, doseq=True).encode()
            given = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.url, **given}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def follow(self, answer: Answer, **given: Any) -> Answer:
        """Where a redirection leads."""
        parts = urlsplit(answer.headers["location"])
        return self.ask(f"{parts.path}?{parts.query}" if parts.query else parts.path, **given)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), DEADLINE)

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))
