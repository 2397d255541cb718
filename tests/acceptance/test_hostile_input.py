"""Whatever a hostile sender puts into a queue, the children live on and the log cannot be forged."""

from __future__ import annotations

import json
import re
import sys

import pika

from domain_events import DomainEvent
from tests.acceptance.service import COMMAND, Service
from tests.hostile import bad_ones, good_ones
from tests.processes import Processes

FIRST_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \d+ [\w.]+ \S")


def test_no_child_dies_and_every_record_in_the_log_is_one_of_ours(service: Service) -> None:
    handle = service.start_consuming("--max-event-crashes", "1")
    key = f"{service.prefix}.work.asked"
    bad = list(bad_ones(key))
    for n, letter in enumerate(good_ones(key)):
        content = json.loads(letter.body) | {"data": {"n": n}}
        body = json.dumps(content).encode()
        service.queues.publish(letter.routing_key, body, properties=letter.properties)  # type: ignore[arg-type]
    for letter in bad:
        service.queues.publish(letter.routing_key, letter.body, properties=letter.properties)  # type: ignore[arg-type]
    # What a handler raises repeats the event, and the log the exception.
    forged = "2026-01-01 00:00:00,000 CRITICAL 1 root forged"
    service.send("work", f"\n{forged}\r\x1b[2J\u202e", do="fail")  # type: ignore[arg-type]
    service.wait_handled(range(n + 1))
    service.queues.wait_count(f"{service.prefix}work:dead", len(bad) + 1)
    handle.terminate()
    assert handle.wait() == 0
    assert handle.output().count("event=child_start") == 2, "nobody was restarted"
    assert "the broker is away" not in handle.output()
    service.wait_empty()
    assert handle.output().count(forged) >= 1
    for line in handle.output().removesuffix("\n").split("\n"):
        assert (FIRST_LINE.match(line) and "forged" not in line) or line.startswith("    ")
        assert line.replace("\t", "").isprintable()
    reasons = [
        str((properties.headers or {})["domain-events-reason"])
        for _, properties, _ in service.queues.drain(f"{service.prefix}work:dead")
    ]
    assert sum(reason.startswith("malformed: ") for reason in reasons) == len(bad)
    assert all(reason.isprintable() for reason in reasons)


def test_an_event_that_cannot_be_read_without_dying_is_set_aside_and_the_others_are_handled(
    service: Service, processes: Processes
) -> None:
    """Its body is malformed nowhere, but takes thirty times as much memory."""
    key, queue = f"{service.prefix}.work.asked", f"{service.prefix}work"
    handle = processes.start(
        [sys.executable, COMMAND, "--backoff", "0.05:0.3", "tests.acceptance.short_of_memory"],
        env={"DOMAIN_EVENT_BROKER": service.url, "TEST_PREFIX": service.prefix},
    )
    handle.wait_output("event=child_consuming")
    large = f'{{"routing_key":"{key}","data":['.encode() + b'{"":0},' * (2**21) + b"0]}"
    service.queues.publish(key, large, properties=pika.BasicProperties(message_id="too-large", delivery_mode=2))
    service.queues.publish(key, DomainEvent(key, "next").encode())
    handle.wait_output("handled next")
    service.queues.wait_count(f"{queue}:dead", 1)
    handle.terminate()
    assert handle.wait() == 0
    assert handle.output().count("event=child_exit") == 3, "two deaths, and the end"
    assert handle.output().count("signal=SIGKILL in_flight=too-large") == 2
    [(_, properties, body)] = service.queues.drain(f"{queue}:dead")
    assert body == large
    assert (properties.headers or {})["domain-events-reason"] == "consumer died 2x (SIGKILL)"
    service.wait_empty()
