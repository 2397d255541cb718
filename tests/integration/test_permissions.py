"""Logins with the rights that docs/security.md names can do their work, and nothing is to spare."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from domain_events import AccessRefused, BrokerError, Receiver, Retry, Sender
from domain_events.events import DomainEvent
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.documents import table
from tests.secret import secret_url

RIGHTS = {row[0]: [cell.strip("`") for cell in row[1:]] for row in table("docs/security.md", "login")}
SENDER, RECEIVER = "a sender", "receivers whose names begin with `shop-`"

pytestmark = pytest.mark.owns_broker  # it makes users


class Logins:
    """Users of the broker with these rights."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.made: list[str] = []

    def make(self, configure: str, write: str, read: str) -> str:
        """Its URL."""
        user = f"rights-{secrets.token_hex(3)}"
        self.made.append(user)
        self._broker.ctl("add_user", user, "pencil")
        self._broker.ctl("set_permissions", user, configure, write, read)
        return secret_url(self._broker.url, user, "pencil")


@pytest.fixture
def logins(broker: Broker) -> Iterator[Logins]:
    logins = Logins(broker)
    yield logins
    for user in logins.made:
        with contextlib.suppress(RuntimeError):
            broker.ctl("delete_user", user)


def test_the_rights_of_the_document_are_enough(logins: Logins, broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(f"shop-{unique}", 100)
    queues.declare_watch(f"{name}.#")  # so that the exchange is there
    sender = Sender(logins.make(*RIGHTS[SENDER]))
    sender.send(f"{name}.a", "nobody")

    def react(event: DomainEvent) -> None:
        if event.data == "retry" and not event.retries:
            raise Retry(0.1)
        if event.data == "dead":
            raise ValueError("cannot be handled")

    seen = Seen(react)
    receiver = Receiver(logins.make(*RIGHTS[RECEIVER]))
    receiver.register(seen, name, [f"{name}.#"], max_retries=1)
    receiver.declare()
    with consuming(receiver), sender:
        sender.send_many([(f"{name}.a", kind) for kind in ("good", "retry", "dead")], mandatory=True)
        seen.wait(4)
        queues.wait_count(f"{name}:dead", 1)


@pytest.mark.parametrize(("right", "instead"), [("write", "^shop-"), ("read", "^shop-")])
def test_a_receiver_with_less_is_told_what_it_lacks(
    logins: Logins, queues: Queues, unique: str, right: str, instead: str
) -> None:
    name = queues.forget_after(f"shop-{unique}")
    queues.declare_watch(f"{name}.#")
    rights = dict(zip(("configure", "write", "read"), RIGHTS[RECEIVER], strict=True)) | {right: instead}
    receiver = Receiver(logins.make(**rights))
    receiver.register(print, name, [f"{name}.#"])
    with pytest.raises(BrokerError) as caught:
        receiver.declare()
    assert isinstance(caught.value, AccessRefused)
    assert {"write": "amq.default", "read": "domain-events"}[right] in str(caught.value)
