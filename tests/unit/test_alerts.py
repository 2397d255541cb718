"""What an alert says, and that none is made about an alert."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from domain_events import DomainEvent
from domain_events.alerts import (
    DEAD_LETTERED,
    dead_lettered,
    has_id_of_alert,
    receiver_failed,
    receiver_recovered,
    suppressed,
)
from domain_events.reading import id_from_hash

GIVEN_UP: dict[str, Any] = {
    "receiver": "printer",
    "event_id": "an-id",
    "routing_keys": ["printer", "user.disabled"],
    "reason": "the handler raised ValueError",
    "error_type": "ValueError",
    "error_message": "no paper",
    "retries": 3,
    "sent_at": 1.5,
    "dead_at": 2.5,
    "dropped": False,
}


def about(**changed: Any) -> DomainEvent | None:
    return dead_lettered(**{**GIVEN_UP, **changed})


def test_it_names_the_event_and_shows_the_routing_key_that_the_body_has() -> None:
    alert = about()
    assert alert is not None
    assert (alert.routing_key, alert.domain_object_id) == (DEAD_LETTERED, "printer")
    assert (alert.data["id"], alert.data["routing_key"]) == ("an-id", "user.disabled")


@pytest.mark.parametrize(
    "keys",
    [
        ["domain-events.dead-lettered"],
        ["alarm", "domain-events.receiver-failed"],  # after a retry or a replay: delivered under the queue's name
        ["domain-events.x", "user.disabled"],  # whatever the body pretends
        ["user.disabled", "domain-events."],
    ],
)
def test_there_is_none_about_an_event_that_was_sent_under_one_of_our_keys(keys: list[str]) -> None:
    assert about(routing_keys=keys) is None


@pytest.mark.parametrize("key", ["domain-events", "domain-eventsx.y", "x.domain-events.y", "Domain-Events.x", ""])
def test_a_key_that_only_looks_like_ours_is_anybodys(key: str) -> None:
    assert about(routing_keys=[key]) is not None


def test_alerts_are_known_by_their_ids_and_these_are_uuids() -> None:
    dead = about()
    assert dead is not None
    alerts = [
        dead,
        suppressed("printer", 7, 10.0),
        receiver_failed("printer", slot="printer#0", reason="SIGKILL", restarts=1, pid=1),
        receiver_recovered("printer", slot="printer#0", restarts=1, pid=1),
    ]
    assert all(has_id_of_alert(alert.uuid_string) for alert in alerts)
    assert all(str(UUID(alert.uuid_string)) == alert.uuid_string for alert in alerts)
    assert {UUID(alert.uuid_string).version for alert in alerts} == {8}
    assert len({alert.uuid_string for alert in alerts}) == len(alerts)
    others = [
        "",
        "a1e27a1e",
        "an-id",
        *(str(uuid4()) for _ in range(1000)),
        *(id_from_hash(str(n)) for n in range(1000)),
    ]
    assert not any(map(has_id_of_alert, others))


def test_nothing_in_it_could_be_another_line_or_a_colour() -> None:
    alert = about(
        event_id="one\ntwo",
        routing_keys=["user.\x1b[31mred"],
        reason="why\nevent=child_exit",
        error_type="E\u202e",
        error_message="\ud800 " + "long " * 1000,
    )
    assert alert is not None
    texts = [value for value in alert.data.values() if isinstance(value, str)]
    assert all(text.isprintable() for text in texts)
    assert max(map(len, texts)) <= 500
    assert DomainEvent.from_json(alert.encode()).data == alert.data
