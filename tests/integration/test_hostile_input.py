"""Under real consumption, whatever arrives: good events are handled, all else is set aside, and nobody stumbles."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable

import pytest

from domain_events import DeadLetter, DomainEvent, Receiver, Retry
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.hostile import Letter, bad_ones, good, good_ones, with_headers
from tests.processes import Processes
from tests.relay import relay
from tests.tables import entries, long, number
from tests.waiting import wait_until


def publish(queues: Queues, letters: Iterable[Letter]) -> None:
    for letter in letters:
        queues.publish(letter.routing_key, letter.body, properties=letter.properties)  # type: ignore[arg-type]


def mixed(key: str) -> list[Letter]:
    """The corpus, with an ordinary event before each of its letters."""
    letters = [*good_ones(key), *bad_ones(key)]
    return [each for n, letter in enumerate(letters) for each in (good(key, f"ordinary {n}"), letter)]


KINDS = {"plain": {}, "threads": {"threads": 3}, "classic": {"queue_type": "classic", "prefetch": 1}}


@pytest.mark.parametrize("kind", KINDS)
def test_good_events_are_handled_and_all_others_are_dead_letters_on_one_connection(
    broker: Broker, queues: Queues, unique: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name, key = queues.forget_after(unique + "r"), unique + "key"
    letters = mixed(key)
    seen = Seen()
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url)
        receiver.register(seen, name, [f"{key}.#"], **KINDS[kind])  # type: ignore[arg-type]
        receiver.declare()
        before = len(wire.links)
        publish(queues, letters)
        with consuming(receiver):
            wanted = {letter.name for letter in letters if not letter.reason}
            wait_until(lambda: wanted <= set(seen.data), 60, "all good events handled")
            queues.wait_count(name + ":dead", len(letters) - len(wanted))
            publish(queues, [good(key, "last")])
            wait_until(lambda: "last" in seen.data, what="the consumer still consumes")
            assert len(wire.links) - before == 2, "one to consume, one for copies: neither was lost"
    assert len(seen.data) == len(wanted) + 1, "each once"
    assert queues.count(name) == 0, "nothing was unsettled"
    dead = queues.drain(name + ":dead")
    reasons = {body: (properties.headers or {})["domain-events-reason"] for _, properties, body in dead}
    for letter in letters:
        if letter.reason:
            assert letter.reason in reasons[letter.body]
            assert reasons[letter.body].startswith("malformed: ")
    for _, properties, _ in dead:
        assert properties.headers is not None
        assert properties.headers["domain-events-receiver"] == name
        # The routing key is believed: it is as much the sender's word as that in the body.
        forged = {header for header, value in properties.headers.items() if value == "forged"}
        assert forged <= {"domain-events-routing-key"}
    check_log(caplog)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of ours but what became of events, each on one line."""
    for record in caplog.records:
        if record.name.startswith("domain_events"):
            assert record.message.isprintable()
            assert len(record.message) < 3000
            assert re.match(r"receiver \S+ (dead-letters|retries) event ", record.message)


def test_forged_counts_and_times_end_the_retries_all_the_same(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name, key = queues.forget_after(unique + "r", 50, 100), unique + "key"

    def handle(event: DomainEvent) -> None:
        raise Retry(0.05)

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [f"{key}.#"], max_retries=2)
    receiver.declare()
    letters = list(good_ones(key))
    publish(queues, letters)
    with consuming(receiver):
        queues.wait_count(name + ":dead", len(letters), 90)
    assert (queues.count(name), queues.count(f"{name}:retry:50")) == (0, 0)
    forged = {"forged: a number": [2**31]}  # the only one of them that is a count
    for letter in letters:
        retries = [event.retries for event in seen.events if event.data == letter.name]
        assert retries == forged.get(letter.name, [0, 1, 2]), letter.name
    for _, properties, body in queues.drain(name + ":dead"):
        headers = properties.headers or {}
        retries = headers["domain-events-retries"]
        assert headers["domain-events-reason"] == f"still failing after {retries} of 2 retries", body
        assert headers["domain-events-error-type"] == "Retry"
        assert 1.7e9 < float(headers["domain-events-first-failed-at"]) < 1e10
        assert not {"CC", "BCC", "x-death"} & headers.keys()
    check_log(caplog)


def test_an_event_with_as_many_headers_as_fit_into_a_frame_is_set_aside(
    broker: Broker, queues: Queues, unique: str
) -> None:
    """Others wait for it in the same thread. Making room among its headers has taken minutes."""
    name, key = queues.forget_after(unique + "r"), unique + "key"

    def handle(event: DomainEvent) -> None:
        if event.data == "many":
            raise ValueError

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [key])
    receiver.declare()
    table = b"".join(entries(**{f"{n:x}": b"d\x7f\xe1\xcc\xf3\x85\xeb\xc8\xa0"}) for n in range(9000))
    publish(queues, [with_headers(key, "many", table), good(key, "next")])
    with consuming(receiver):
        seen.wait(2)
        queues.wait_count(name + ":dead", 1)
    [(_, properties, _)] = queues.drain(name + ":dead")
    assert (properties.headers or {})["domain-events-headers-left-out"] > 1000


def test_a_reason_that_a_handler_took_from_an_event_forges_no_line_and_no_header(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"

    def handle(event: DomainEvent) -> None:
        raise DeadLetter(event.data)

    receiver = Receiver(broker.url)
    receiver.register(Seen(handle), name, [key])
    receiver.declare()
    text = "no\n2026-01-01 CRITICAL root forged\r\x1b[2J\x9b1m\0\u202e\ud800" + "x" * 100_000
    queues.publish(key, DomainEvent(key, text, uuid_string="id\nevent=child_exit \x1b[m").encode())
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    [(_, properties, _)] = queues.drain(name + ":dead")
    reason = (properties.headers or {})["domain-events-reason"]
    assert reason.isprintable()
    assert reason.startswith(r"no 2026-01-01 CRITICAL root forged \x1b[2J\x9b1m\x00\u202e\ud800xxx")
    assert len(reason) <= 2000
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message.isprintable()
    assert record.message.startswith(
        f"receiver {name} dead-letters event id\\nevent=child_exit \\x1b[m ({key}): no 2026"
    )


def test_who_forges_a_count_of_retries_shortens_those_of_that_event_and_of_no_other(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name, key = queues.forget_after(unique + "r", 50), unique + "key"

    def handle(event: DomainEvent) -> None:
        if event.retries < 1:
            raise Retry(0.05)

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [key], max_retries=1)
    receiver.declare()
    table = entries(domain_events_retries=number(2**62), domain_events_routing_key=long("x" * 4096))
    publish(queues, [with_headers(key, "forged", table), good(key, "honest")])
    with consuming(receiver):
        seen.wait(3)
    assert [(event.data, event.retries) for event in seen.events] == [("forged", 2**31), ("honest", 0), ("honest", 1)]


HUNGRY = """
import resource, sys
from domain_events import Receiver
url, name, key = sys.argv[1:]
receiver = Receiver(url)
@receiver.handles(name, [key])
def handle(event):
    print("handled", event.data, flush=True)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250 * 2**20, resource.RLIM_INFINITY))
receiver.start_consuming()
print("stopped", flush=True)
"""


def test_an_event_that_needs_more_memory_than_there_is_is_set_aside(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [key])
    receiver.declare()
    # Thirty times as much in memory.
    body = f'{{"routing_key":"{key}","data":['.encode() + b'{"":0},' * (2**21) + b"0]}"
    queues.publish(key, body)
    publish(queues, [good(key, "next")])
    process = processes.start([sys.executable, "-c", HUNGRY, broker.url, name, key])
    process.wait_output("handled next")
    queues.wait_count(name + ":dead", 1)
    process.terminate()
    process.wait_output("stopped")
    assert process.wait() == 0
    [(_, properties, kept)] = queues.drain(name + ":dead")
    assert kept == body
    reason = (properties.headers or {})["domain-events-reason"]
    assert reason == "malformed: reading the body takes more memory than there is"
    assert queues.count(name) == 0
