"""Logins with the rights that docs/security.md names can do their work, and nothing is to spare."""

from __future__ import annotations

import secrets

import pytest

from domain_events import AccessRefused, Receiver, Retry, Sender
from domain_events.events import DomainEvent
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.documents import table
from tests.secret import secret_url

RIGHTS = {row[0]: [cell.strip("`") for cell in row[1:]] for row in table("docs/security.md", "login")}
SENDER, RECEIVER = "a sender", "receivers whose names begin with `shop-`"

pytestmark = pytest.mark.owns_broker  # it makes users


class Logins:
    """Users of the broker with these rights. The broker is ours, and ends with them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._user = ""

    def make(self, configure: str, write: str, read: str) -> str:
        """Its URL."""
        self._user = f"rights-{secrets.token_hex(3)}"
        self._broker.ctl("add_user", self._user, "pencil")
        self.change(configure, write, read)
        return secret_url(self._broker.url, self._user, "pencil")

    def change(self, configure: str, write: str, read: str) -> None:
        """Of the user that was made last."""
        self._broker.ctl("set_permissions", self._user, configure, write, read)


@pytest.fixture
def logins(broker: Broker) -> Logins:
    return Logins(broker)


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


def test_a_receiver_with_less_is_told_what_it_lacks(logins: Logins, queues: Queues, unique: str) -> None:
    name = queues.forget_after(f"shop-{unique}")
    queues.declare_watch(f"{name}.#")
    configure, write, read = RIGHTS[RECEIVER]
    receiver = Receiver(logins.make(configure, "^shop-", read))
    receiver.register(print, name, [f"{name}.#"])
    with pytest.raises(AccessRefused, match=r"amq\.default"):
        receiver.declare()
    logins.change(configure, write, "^shop-")
    with pytest.raises(AccessRefused, match="domain-events"):
        receiver.declare()
