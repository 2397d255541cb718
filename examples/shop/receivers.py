"""Three receivers: one succeeds, one succeeds at its third retry, one gives up."""

import logging

from domain_events import DomainEvent, Receiver, Retry
from examples.shop.ledger import note

logger = logging.getLogger(__name__)

receiver = Receiver()


@receiver.handles("confirmation-mail", ["order.placed"])
def send_confirmation_mail(event: DomainEvent) -> None:
    note("confirmation-mail", event, "handled")


@receiver.handles("parcel-label", ["order.placed"], max_retries=3)
def print_parcel_label(event: DomainEvent) -> None:
    if event.retries < 3:
        delay = 0.2 * 5.0**event.retries  # 0.2 s, 1 s, 5 s
        note("parcel-label", event, f"printer has no paper, again in {delay:g} s")
        raise Retry(delay)
    note("parcel-label", event, "handled")


@receiver.handles("loyalty-points", ["order.#"])
def add_loyalty_points(event: DomainEvent) -> None:
    note("loyalty-points", event, "no such customer, to the dead letters")
    raise LookupError(f"no customer {event.data['customer_id']}")
