"""What the errors tell, beyond their text."""

from __future__ import annotations

import pickle

from domain_events.errors import PartlySent, SendTimeout, Unroutable
from domain_events.events import DomainEvent


def test_partly_sent_lists_what_was_not_confirmed_and_names_the_first():
    events = [DomainEvent("user.disabled", {"secret": 1}, uuid_string=name) for name in ("a", "b")]
    error = PartlySent(events, [SendTimeout("no confirm within 10 s"), Unroutable("no queue")], 5)
    assert error.unconfirmed == events
    assert [type(cause) for cause in error.causes] == [SendTimeout, Unroutable]
    assert str(error) == "2 of 5 events were not confirmed; the first: user.disabled a: no confirm within 10 s"


def test_partly_sent_comes_out_of_a_process_pool():
    error = PartlySent([DomainEvent("user.disabled", {})], [SendTimeout("no confirm")], 1)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.unconfirmed) == (str(error), error.unconfirmed)
