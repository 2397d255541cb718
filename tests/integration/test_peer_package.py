"""domain-event-broker 3.0.2, the public package whose wire format we share, on the same exchange, both ways."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import domain_event_broker as peer
import pytest

from domain_events import DomainEvent, Receiver, Retry, Sender, send_domain_event
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.waiting import wait_until


class PeerReceiver:
    """Their Subscriber in a thread; ours to stop."""

    def __init__(self, url: str, name: str, keys: list[str], handler: Callable[[Any], None], **options: Any) -> None:
        self._subscriber = peer.Subscriber(url)
        self._subscriber.register(handler, name, keys, **options)
        self._thread = threading.Thread(target=self._subscriber.start_consuming)
        self._thread.start()

    def stop(self) -> None:
        channel = self._subscriber.channel
        self._subscriber.connection.add_callback_threadsafe(channel.stop_consuming)
        self._thread.join(20)
        self._subscriber.workers.shutdown()
        assert not self._thread.is_alive()
        if self._subscriber.connection is not None:
            self._subscriber.disconnect()


@pytest.fixture
def theirs(queues: Queues, unique: str) -> str:
    """The name of a receiver of theirs, whose exchanges and queues are gone afterwards."""
    name = queues.forget_after(unique + "theirs")
    queues.forget_after(name + "-dl")
    queues.forget_exchange_after(name + "-retry")
    queues.forget_exchange_after(name + "-dlx")
    return name


def test_what_they_send_reaches_our_receiver(broker: Broker, queues: Queues, unique: str) -> None:
    seen = Seen()
    receiver = Receiver(broker.url)
    receiver.register(seen, queues.forget_after(unique + "ours"), [unique + "user.*"])
    receiver.declare()
    sent = peer.publish_domain_event(
        unique + "user.disabled", {"user_id": 1, "name": "ü"}, domain_object_id="7", connection_settings=broker.url
    )
    with consuming(receiver):
        [event] = seen.wait(1)
    assert (event.routing_key, event.data) == (sent.routing_key, sent.data)
    assert (event.domain_object_id, event.uuid_string) == ("7", sent.uuid_string)
    assert (event.timestamp, event.retries) == (sent.timestamp, 0)


def test_what_we_send_reaches_their_receiver(broker: Broker, theirs: str, unique: str) -> None:
    got: list[Any] = []
    receiver = PeerReceiver(broker.url, theirs, [unique + "user.*"], got.append)
    try:
        sent = send_domain_event(unique + "user.disabled", {"user_id": 1}, 7, connection_settings=broker.url)
        many = Sender(broker.url).send_many([(unique + "user.a", {"n": n}) for n in range(10)])
        wait_until(lambda: len(got) == 11, what="the events at their receiver")
    finally:
        receiver.stop()
    for ours, other in zip([sent, *many], got, strict=True):
        assert (other.routing_key, other.data) == (ours.routing_key, ours.data)
        assert (other.domain_object_id, other.uuid_string) == (ours.domain_object_id, ours.uuid_string)
        assert other.timestamp == ours.timestamp


def test_their_event_and_ours_are_equal_as_json(unique: str) -> None:
    ours = DomainEvent("user.disabled", {"user_id": 1}, "7")
    other = peer.DomainEvent.from_json(ours.to_json())
    assert other.event_data == {
        "routing_key": "user.disabled",
        "data": {"user_id": 1},
        "domain_object_id": "7",
        "uuid_string": ours.uuid_string,
        "timestamp": ours.timestamp,
    }


def test_both_listen_on_one_exchange_and_a_retry_of_either_is_no_business_of_the_other(
    broker: Broker, queues: Queues, theirs: str, unique: str
) -> None:
    def our_failure(event: DomainEvent) -> None:
        if event.retries < 2:
            raise Retry(0.05)

    their_events: list[Any] = []

    def their_failure(event: Any) -> None:
        their_events.append(event)
        if event.retries < 1:
            raise peer.Retry(0.05)

    seen = Seen(our_failure)
    ours = queues.forget_after(unique + "ours", 50)
    queues.forget_after(f"{theirs}-delay-50")
    receiver = Receiver(broker.url)
    receiver.register(seen, ours, [unique + "key"], max_retries=3)
    receiver.declare()
    their_receiver = PeerReceiver(broker.url, theirs, [unique + "key"], their_failure, max_retries=3, dead_letter=True)
    try:
        with consuming(receiver):
            peer.publish_domain_event(unique + "key", {"from": "them"}, connection_settings=broker.url)
            send_domain_event(unique + "key", {"from": "us"}, connection_settings=broker.url)
            seen.wait(6)
            wait_until(lambda: len(their_events) >= 4, what="their retries")
    finally:
        their_receiver.stop()
    for sender in ("them", "us"):
        assert [event.retries for event in seen.events if event.data == {"from": sender}] == [0, 1, 2]
        assert [event.retries for event in their_events if event.data == {"from": sender}] == [0, 1]
    queues.wait_count(ours, 0)
    queues.wait_count(theirs, 0)
    assert queues.count(ours + ":dead") == 0
    assert queues.count(theirs + "-dl") == 0
