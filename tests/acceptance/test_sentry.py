"""The example for Sentry in docs/observing.md, with the real SDK, under the supervisor: what Sentry would be told."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from domain_events import DomainEvent, Sender
from tests.acceptance.service import COMMAND
from tests.brokers import Broker, Queues
from tests.documents import BLOCKS
from tests.processes import Processes
from tests.waiting import wait_until

RECEIVERS = """
import os

from domain_events import Receiver, Retry

import errors

receiver = Receiver()
NAME = os.environ["TEST_PREFIX"] + "printer"


@receiver.handles(NAME, [NAME + ".#"], max_retries=1)
def print_order(event):
    if event.data == "again" and not event.retries:
        raise Retry(0.1) from OSError("no paper")
    if event.data == "bad":
        raise ValueError("no such order")
"""


class Sentry(ThreadingHTTPServer):
    """Takes the envelopes that SDKs post: lines of JSON, of which some are headers."""

    def __init__(self) -> None:
        self.issues: list[dict[str, Any]] = []
        issues = self.issues

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                items = [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]
                issues.extend(item for item in items if "level" in item)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Answer)


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with Sentry() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def test_each_failure_is_one_issue_with_the_receiver_and_the_event(
    broker: Broker, queues: Queues, processes: Processes, sentry: Sentry, unique: str, tmp_path: Path
) -> None:
    name = queues.forget_after(f"{unique}printer", 100)
    [example] = [block for block in BLOCKS if block.text.startswith("# errors.py")]
    (tmp_path / "errors.py").write_text(example.text)
    (tmp_path / "receivers.py").write_text(RECEIVERS)
    service = processes.start(
        [sys.executable, COMMAND, "receivers"],
        env={
            "DOMAIN_EVENT_BROKER": broker.url,
            "TEST_PREFIX": unique,
            "SENTRY_DSN": f"http://key@127.0.0.1:{sentry.server_port}/1",
        },
        cwd=tmp_path,
    )
    service.wait_output("event=child_consuming")
    sender = Sender(broker.url)
    _, bad, again = sender.send_many([(f"{name}.key", data) for data in ("good", "bad", "again")])
    queues.publish(f"{name}.key", b"no event")
    queues.wait_count(f"{name}:dead", 2)
    wait_until(lambda: len(sentry.issues) >= 3, what="three issues")
    service.terminate()
    assert service.wait() == 0

    issues = {title(issue): issue["tags"] for issue in sentry.issues}
    assert len(sentry.issues) == 3, issues  # the lines in the log about dead letters are none
    assert issues["ValueError: no such order"] == tags(name, bad)
    assert issues["Retry: retry in 0.1 s"] == tags(name, again)
    assert issues["MalformedEvent: the body is not JSON: Expecting value (at character 0)"] == {"receiver": name}


def title(issue: dict[str, Any]) -> str:
    last = issue["exception"]["values"][-1]
    return f"{last['type']}: {last['value']}"


def tags(receiver: str, event: DomainEvent) -> dict[str, Any]:
    return {"receiver": receiver, "routing_key": event.routing_key, "event_id": event.uuid_string, "retries": 0}
