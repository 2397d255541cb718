"""Exchanges, queues and bindings as the broker has them: exactly those of the published contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pika.exceptions
import pytest

from domain_events import DomainEvent, Receiver, Retry, Sender, TopologyMismatch
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.relay import relay
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def quorum(name: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{name}:dead",
    }


def is_declared_with(queues: Queues, name: str, arguments: dict[str, Any]) -> bool:
    """The broker compares the arguments of a queue that is there: other ones are refused (406)."""
    assert queues.count(name) is not None
    try:
        queues.channel.queue_declare(name, durable=True, arguments=arguments)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 406:
            raise
        return False
    return True


def has_exactly(queues: Queues, name: str, arguments: dict[str, Any]) -> None:
    """Each argument is there, and none that the broker compares is there besides."""
    assert is_declared_with(queues, name, arguments)
    for argument in arguments:
        fewer = {key: value for key, value in arguments.items() if key != argument}
        if argument != "x-queue-type":  # a default since 4.0 may stand for it
            assert not is_declared_with(queues, name, fewer), f"{argument} is not set on {name}"
    for argument, value in {"x-message-ttl": 1, "x-expires": 1_000_000, "x-max-length": 10}.items():
        if argument not in arguments:
            assert not is_declared_with(queues, name, {**arguments, argument: value})


def test_a_receiver_has_a_quorum_queue_and_one_for_dead_letters(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    receiver.declare()
    has_exactly(queues, name, quorum(name))
    has_exactly(queues, name + ":dead", {"x-queue-type": "quorum", "x-delivery-limit": 2147483647})


def test_a_receiver_without_dead_letters_has_no_queue_for_them(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"], dead_letter=False)
    receiver.declare()
    has_exactly(queues, name, quorum(name))
    assert queues.count(name + ":dead") is None


def test_a_receiver_that_is_not_durable_has_a_classic_queue_that_expires(
    broker: Broker, queues: Queues, unique: str
) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"], durable=False)
    receiver.declare()
    has_exactly(queues, name, {"x-queue-type": "classic", "x-expires": 60_000})
    has_exactly(queues, name + ":dead", {"x-queue-type": "quorum", "x-delivery-limit": 2147483647})


def test_a_classic_queue_can_be_asked_for(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"], queue_type="classic")
    receiver.declare()
    has_exactly(queues, name, {"x-queue-type": "classic"})
    has_exactly(queues, name + ":dead", {"x-queue-type": "quorum", "x-delivery-limit": 2147483647})


@pytest.mark.parametrize(("delay", "ms"), [(0.05, 50), (1.234, 1300), (0.0004, 1), (0.3, 300)])
def test_each_delay_has_a_retry_queue_of_its_own(
    broker: Broker, queues: Queues, unique: str, delay: float, ms: int
) -> None:
    name = queues.forget_after(unique + "r", ms)

    def fail(_event: DomainEvent) -> None:
        raise Retry(delay)

    receiver = Receiver(broker.url)
    seen = Seen(fail)
    receiver.register(seen, name, [unique + "key"], max_retries=1)
    receiver.declare()
    assert queues.count(f"{name}:retry:{ms}") is None  # it comes with the first retry
    Sender(broker.url).send(unique + "key", 1)
    with consuming(receiver):
        seen.wait(2)
    has_exactly(
        queues,
        f"{name}:retry:{ms}",
        {
            "x-queue-type": "quorum",
            "x-message-ttl": ms,
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": name,
        },
    )


def test_the_exchange_is_a_durable_topic_exchange(broker: Broker, queues: Queues, unique: str) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    Sender(broker.url, exchange).send("a.b", 1)
    queues.channel.exchange_declare(exchange, "topic", durable=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="406"):
        queues.channel.exchange_declare(exchange, "topic", durable=False)


def test_declaring_again_changes_nothing(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send(unique + "key", 1)
    receiver.declare()
    queues.wait_count(name, 1)


def test_many_receivers_are_declared_over_one_connection(broker: Broker, queues: Queues, unique: str) -> None:
    names = [queues.forget_after(f"{unique}r{n}") for n in range(20)]
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url)
        for name in names:
            receiver.register(Seen(), name, [unique + "key", unique + "other.#"])
        receiver.declare()
        assert len(wire.links) == 1
    Sender(broker.url).send(unique + "other.key", 1, mandatory=True)
    for name in names:
        queues.wait_count(name, 1)


def test_names_may_hold_what_the_contract_allows(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "é ü/#%" + "x" * (200 - len((unique + "é ü/#%").encode())), 10)
    assert len(name.encode()) == 200
    key = unique + "ключ." + "y" * (255 - len((unique + "ключ.").encode()))
    assert len(key.encode()) == 255

    def once(event: DomainEvent) -> None:
        raise Retry(0.01)

    seen = Seen(once)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [key], max_retries=1)
    receiver.declare()
    sent = Sender(broker.url).send(key, 1)
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    assert seen.events == [sent, sent]


# Something else is there already


@pytest.mark.parametrize(
    ("there", "argument", "asked", "current"),
    [
        ({"x-delivery-limit": 5}, "x-delivery-limit", "100", "5"),
        ({"x-message-ttl": 1234}, "x-message-ttl", "none", "1234"),
        ({"x-dead-letter-exchange": "other"}, "x-dead-letter-exchange", "''", "other"),
    ],
)
def test_a_queue_with_other_arguments_is_an_error_that_names_both_values_and_the_way_out(
    broker: Broker, queues: Queues, unique: str, there: dict[str, Any], argument: str, asked: str, current: str
) -> None:
    name = queues.forget_after(unique + "r")
    queues.channel.queue_declare(name, durable=True, arguments={**quorum(name), **there})
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    for attempt in (receiver.declare, receiver.start_consuming):
        with pytest.raises(TopologyMismatch) as mismatch:
            attempt()
        message = str(mismatch.value)
        assert f"queue '{name}'" in message
        assert f"'{argument}'" in message
        assert f"asked for {asked}, there is {current}" in message
        assert name in message
        assert "domain-events topology plan" in message


def test_a_queue_of_the_other_type_is_a_mismatch(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    queues.channel.queue_declare(name, durable=True)  # as older tools made them
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    # Which of the arguments that differ the broker names first is its own affair.
    with pytest.raises(TopologyMismatch, match=f"queue '{name}' exists with another 'x-"):
        receiver.declare()


def test_a_dead_letter_queue_with_other_arguments_is_named(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    queues.channel.queue_declare(name + ":dead", durable=True, arguments={"x-queue-type": "classic"})
    receiver = Receiver(broker.url)
    receiver.register(Seen(), name, [unique + "key"])
    with pytest.raises(TopologyMismatch, match=f"queue '{name}:dead'"):
        receiver.declare()


def test_an_exchange_of_another_type_is_named(broker: Broker, queues: Queues, unique: str) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    queues.channel.exchange_declare(exchange, "direct", durable=True)
    receiver = Receiver(broker.url, exchange)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    with pytest.raises(TopologyMismatch, match=f"exchange '{exchange}'.*asked for topic, there is direct"):
        receiver.declare()


def test_a_mismatch_of_one_receiver_ends_the_others_of_its_process_cleanly(
    broker: Broker, queues: Queues, unique: str
) -> None:
    good, bad = queues.forget_after(unique + "good"), queues.forget_after(unique + "bad")
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, good, [unique + "key"])
    receiver.declare()
    Sender(broker.url).send_many([(unique + "key", n) for n in range(200)])
    queues.channel.queue_declare(bad, durable=True, arguments={"x-queue-type": "classic"})
    receiver.register(Seen(), bad, [unique + "key"])
    with pytest.raises(TopologyMismatch):
        receiver.start_consuming()
    # Nothing is lost: what was handled may be there once more, the rest is there.
    left = 200 - len(seen.events)
    wait_until(lambda: (queues.count(good) or 0) >= left, what="all that was not handled")


RUN = """
import sys
from domain_events import Receiver
receiver = Receiver(sys.argv[1])
receiver.register(print, sys.argv[2], ["a.b"])
receiver.start_consuming()
"""


def test_a_program_that_cannot_declare_ends_with_the_reason(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "r")
    queues.channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
    done = subprocess.run(
        [sys.executable, "-c", RUN, broker.url, name], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("domain_events.errors.TopologyMismatch: queue")


@pytest.mark.owns_broker
def test_a_login_that_may_not_declare_the_exchange_uses_the_one_that_is_there(
    own_broker: Broker, own_queues: Queues
) -> None:
    own_queues.channel.exchange_declare("domain-events", "topic", durable=True)
    own_broker.ctl("add_user", "app", "secret")
    own_broker.ctl("set_permissions", "app", "^app-", "^app-|^domain-events$|^amq.default$", "^app-|^domain-events$")
    url = own_broker.url.replace("guest:guest", "app:secret")

    def fail(_event: DomainEvent) -> None:
        raise Retry(0.01)

    seen = Seen(fail)
    receiver = Receiver(url)
    receiver.register(seen, "app-r", ["a.b"], max_retries=1)
    with consuming(receiver):
        wait_until(lambda: own_queues.count("app-r") is not None, what="the queue")
        wait_until(lambda: Sender(url).send("a.b", 1) and seen.events, what="an event", pause=0.2)
        seen.wait(2)
    assert set(seen.retries) == {0, 1}
    other = Receiver(url)
    other.register(Seen(), "elsewhere", ["a.b"])
    with pytest.raises(Exception, match="403"):
        other.declare()
    Sender(url).close()
