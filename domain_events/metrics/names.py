"""What the numbers of events are called, in every process that tells them."""

from __future__ import annotations

from typing import Final, NamedTuple


class Name(NamedTuple):
    """Of a counter without `_total`."""

    name: str
    about: str


DELIVERED: Final = Name("domain_events_delivered", "Events handed to the handler.")
HANDLED: Final = Name("domain_events_handled", "Events whose handler returned.")
RETRIED: Final = Name("domain_events_retried", "Events that come again after a delay.")
DEAD_LETTERED: Final = Name("domain_events_dead_lettered", "Events that were given up.")
DROPPED: Final = Name("domain_events_dropped", "Of the events given up, those of receivers without dead letters.")
FAILED: Final = Name("domain_events_failed", "Failures to handle an event, by the type of the error.")
SENT: Final = Name("domain_events_sent", "Events sent, and confirmed by the broker.")
SEND_FAILED: Final = Name("domain_events_send_failed", "Events that were not confirmed by the broker.")
HANDLER_SECONDS: Final = Name("domain_events_handler_seconds", "How long handlers took, also those that failed.")
LAG_SECONDS: Final = Name("domain_events_lag_seconds", "From the timestamp of an event to the call of its handler.")
IN_FLIGHT: Final = Name("domain_events_in_flight", "Events that handlers have in hand.")
