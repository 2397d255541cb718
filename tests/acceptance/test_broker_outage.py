"""The broker dies and comes back under load: everything that was confirmed is handled."""

from __future__ import annotations

import threading

import pytest

from domain_events import SendError
from tests.acceptance.service import Service
from tests.brokers import Broker
from tests.waiting import wait_until

pytestmark = pytest.mark.owns_broker

EVENTS = 400


def test_a_broker_killed_and_restarted_under_load_loses_nothing(own_service: Service, own_broker: Broker) -> None:
    master = own_service.start_consuming()
    # A retry queue that is younger than a second may not survive the kill (docs/decisions/0003). Its events would not
    # be lost, for their originals are not acknowledged yet, but RabbitMQ 3.10 cannot use such a queue any more.
    own_service.send("work", EVENTS, do="retry", times=1, delay=0.5)
    own_service.wait_handled(range(EVENTS, EVENTS + 1))
    own_service.queues.settle()
    confirmed = {EVENTS}
    doubtful: set[int] = set()

    def send() -> None:
        for n in range(EVENTS):
            try:
                own_service.send("work", n, **({"do": "retry", "times": 1, "delay": 0.5} if n % 10 == 0 else {}))
                confirmed.add(n)
            except SendError:
                doubtful.add(n)  # it may have arrived, or not

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(confirmed) >= EVENTS // 4, 60.0, "a quarter is sent")
    own_broker.kill()
    own_broker.restart()
    sender.join(120)
    assert not sender.is_alive()

    def missing() -> set[int]:
        return confirmed - set(own_service.handled())

    wait_until(lambda: not missing(), 90.0, "everything confirmed is handled")
    master.terminate()
    assert master.wait() == 0
    own_service.wait_empty()
    handled = own_service.handled()
    dead = own_service.queues.count(f"{own_service.prefix}work:dead") or 0
    assert dead == 0
    assert set(handled) <= confirmed | doubtful
    duplicates = sum(times - 1 for times in handled.values())
    print(f"sent {len(confirmed)}, unconfirmed {len(doubtful)}, handled {len(handled)}, duplicates {duplicates}")
    # The outage is no crash: the same children came back by themselves.
    assert master.output().count("event=child_start") == 2


def test_the_service_may_start_before_its_broker(own_service: Service, own_broker: Broker) -> None:
    own_broker.kill()
    master = own_service.start()
    master.wait_output("the broker is away")
    own_broker.restart()
    wait_until(lambda: master.output().count("event=child_consuming") >= 2, 60.0, "both children consume")
    own_service.send("work", 1)
    own_service.wait_handled(range(1, 2))
    master.terminate()
    assert master.wait() == 0
