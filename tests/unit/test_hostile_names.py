"""Names with control characters are refused wherever one is given, and the message cannot be forged with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from domain_events import DomainEvent, Receiver, Sender, send_domain_event, send_domain_events
from domain_events.errors import InvalidName
from domain_events.settings import configured_brokers
from domain_events.supervisor.arguments import add_arguments, read_options
from domain_events.supervisor.options import UsageError
from domain_events.supervisor.selection import select
from tests.registrations import register

BAD = "a\n2026-01-01 CRITICAL forged\r\x1b[2J\x9b\0\u2028\u202e"


def handle(event: DomainEvent) -> None: ...


@pytest.mark.parametrize(
    "give",
    [
        lambda: DomainEvent(BAD, 1),
        lambda: send_domain_event(BAD, 1, connection_settings=None),
        lambda: send_domain_events([(BAD, 1)], connection_settings=None),
        lambda: Sender(None, exchange=BAD),
        lambda: Sender(None, app_id=BAD),
        lambda: Receiver(None, exchange=BAD),
        lambda: Receiver(None).register(handle, BAD, ["a.b"]),
        lambda: Receiver(None).register(handle, "a", BAD),
        lambda: Receiver(None).register(handle, "a", ["a.b", BAD]),
        lambda: Receiver(None).handles(BAD, ["a.b"])(handle),
    ],
)
def test_every_door_refuses_them_and_shows_the_name_as_a_literal(give: Callable[[], Any]) -> None:
    with pytest.raises(InvalidName) as caught:
        give()
    assert str(caught.value).isprintable()
    assert repr(BAD) in str(caught.value)


@pytest.mark.parametrize("flag", ["--only", "--except", "--processes"])
def test_so_do_the_flags_that_name_receivers(flag: str) -> None:
    # Without the null byte, which no argument can hold.
    name = BAD.replace("\0", "")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = vars(parser.parse_args([flag, f"{name}=2" if flag == "--processes" else name]))
    with pytest.raises(UsageError) as caught:
        select([register()], read_options(given, {}))
    assert str(caught.value).isprintable()
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("url", ["amqp://a%0Ab:secret@host/v", "amqp://a:secret@host/v%0A%1b[2J"])
def test_a_broker_is_shown_on_one_line_whatever_its_url_holds(url: str) -> None:
    [broker] = configured_brokers(url, "consumer") or ()
    assert str(broker).isprintable()
    assert repr(broker).isprintable()


def test_an_event_is_shown_on_one_line_whatever_its_id_is() -> None:
    assert repr(DomainEvent("a.b", 1, uuid_string=BAD)).isprintable()
