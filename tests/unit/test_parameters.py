"""What pika is told to reach a node: prepared once, and a copy for each connection."""

from __future__ import annotations

import copy

import pytest

from domain_events.broker_url import Broker, parse_broker
from domain_events.transport.parameters import connection_parameters, prepare_parameters


@pytest.fixture
def broker() -> Broker:
    return parse_broker("amqp://anna:secret@node:5673/shop?heartbeat=7&connection_timeout=4000", "test")


def test_the_parameters_say_what_the_url_says(broker: Broker) -> None:
    found = connection_parameters(broker, "printer")
    assert (found.host, found.port, found.virtual_host, found.heartbeat) == ("node", 5673, "shop", 7)
    assert (found.credentials.username, found.credentials.password) == ("anna", "secret")
    assert (found.stack_timeout, found.ssl_options) == (4.0, None)
    assert found.client_properties["connection_name"].startswith("printer ")


def test_what_one_connection_negotiates_is_no_matter_of_the_next(broker: Broker) -> None:
    first = copy.deepcopy(connection_parameters(broker, "printer"))  # as pika does
    first.heartbeat, first.frame_max, first.channel_max = 1, 4096, 2
    second = connection_parameters(broker, "mailer")
    assert (second.heartbeat, second.channel_max) == (7, prepare_parameters(broker).channel_max)
    assert second.frame_max > first.frame_max
    assert first.client_properties["connection_name"].startswith("printer ")


def test_a_copy_has_every_attribute(broker: Broker) -> None:
    made = prepare_parameters(broker)
    assert copy.deepcopy(made) == made
    assert copy.deepcopy(made) is not made
