"""The plan of a receiver's queues: names, arguments and the rounding of delays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.policy import LONGEST_DELAY, Backoff
from domain_events.transport.topology import (
    dead_letter_queue,
    dead_letter_queue_name,
    main_queue,
    retry_delay,
    retry_queue,
)
from tests.registrations import register


def test_the_main_queue_is_a_quorum_queue_whose_safety_net_is_the_dead_letter_queue() -> None:
    queue = main_queue(register())
    assert queue.name == "printer"
    assert queue.arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "printer:dead",
    }


def test_a_classic_main_queue_has_no_other_arguments() -> None:
    assert main_queue(register(queue_type="classic")).arguments == {"x-queue-type": "classic"}


@pytest.mark.parametrize("given", [{}, {"queue_type": "classic"}, {"durable": False}])
def test_a_queue_with_a_single_active_consumer_says_so_and_differs_in_nothing_else(given: dict[str, Any]) -> None:
    queue = main_queue(register(single_active=True, **given))
    assert queue.arguments == {**main_queue(register(**given)).arguments, "x-single-active-consumer": True}


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_passing_queue_is_classic_and_expires_whatever_type_was_asked_for(queue_type: str) -> None:
    queue = main_queue(register(durable=False, queue_type=queue_type))
    assert queue.arguments == {"x-queue-type": "classic", "x-expires": 60_000}


def test_the_dead_letter_queue_is_a_plain_quorum_queue() -> None:
    queue = dead_letter_queue("printer")
    assert (queue.name, queue.arguments) == (
        "printer:dead",
        {"x-queue-type": "quorum", "x-delivery-limit": 2147483647},
    )
    assert dead_letter_queue_name("printer") == queue.name


def test_a_retry_queue_hands_back_to_its_receiver_and_never_expires() -> None:
    queue = retry_queue("printer", 25_000)
    assert queue.name == "printer:retry:25000"
    assert queue.arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 25_000,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "printer",
    }


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0.0, 0),
        (0.0001, 1),
        (0.001, 1),
        (0.0015, 2),
        (0.01, 10),
        (0.0101, 11),
        (0.099, 99),
        (0.0995, 100),
        (0.1, 100),
        (0.101, 110),
        (0.3, 300),
        (0.1 + 0.2, 300),
        (1.0, 1000),
        (1.234, 1300),
        (1.5, 1500),
        (5.0, 5000),
        (9.91, 10_000),
        (25.0, 25_000),
        (125.0, 130_000),
        (3600.0, 3_600_000),
        (86_400.0, 87_000_000),
        (LONGEST_DELAY, 4_233_600_000),
        (LONGEST_DELAY * 2, 4_233_600_000),
    ],
)
def test_delays_are_rounded_up_to_two_significant_digits_of_milliseconds(seconds: float, milliseconds: int) -> None:
    assert retry_delay(seconds) == milliseconds


@given(st.floats(min_value=1e-5, max_value=LONGEST_DELAY))
def test_a_rounded_delay_is_never_shorter_and_at_most_a_tenth_longer(seconds: float) -> None:
    rounded = retry_delay(seconds)
    assert rounded >= seconds * 1000 - 1e-5
    assert rounded <= max(1, seconds * 1000 * 1.1 + 1)
    assert rounded < 2**32  # an x-message-ttl


@given(st.floats(min_value=0.0, max_value=LONGEST_DELAY))
def test_rounding_a_rounded_delay_changes_nothing(seconds: float) -> None:
    assert retry_delay(retry_delay(seconds) / 1000) == retry_delay(seconds)


@given(st.floats(min_value=0.0, max_value=LONGEST_DELAY), st.floats(min_value=0.0, max_value=LONGEST_DELAY))
def test_a_longer_delay_stays_at_least_as_long(one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert retry_delay(short) <= retry_delay(long)


def test_jitter_makes_a_few_queues_not_one_for_each_event() -> None:
    backoff = Backoff(first=100.0, factor=1.0, jitter=0.1)
    delays = {retry_delay(backoff.delay(0, spread / 1000)) for spread in range(1001)}
    assert len(delays) <= 5


def test_the_default_backoff_leads_to_fewer_than_fifty_queues_in_all() -> None:
    delays = {retry_delay(Backoff().delay(n, spread / 1000)) for n in range(20) for spread in range(1001)}
    assert len(delays) < 50


def test_the_longest_receiver_name_leaves_room_for_the_names_of_its_queues() -> None:
    longest = "n" * 200
    for queue in (dead_letter_queue(longest), retry_queue(longest, retry_delay(LONGEST_DELAY))):
        assert len(queue.name.encode()) <= 255
