"""Events about events: what tells others of a dead letter or a failed receiver, and what never does.

They are domain events like any other, so that alerting is just another receiver. None holds the data of the event that
it is about, which may be private: who looks into it needs the right to look into the dead letters.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from typing import Any, TypeAlias
from uuid import uuid4

from domain_events.events import DomainEvent
from domain_events.showing import one_line, printable

EXCHANGE = "domain-events"
"""All of them go there, whatever exchange the receiver is bound to: one receiver for alerts is enough."""

OURS = "domain-events."
"""Routing keys that begin like this are kept for alerts."""

DEAD_LETTERED = OURS + "dead-lettered"
SUPPRESSED = OURS + "alerts-suppressed"
RECEIVER_FAILED = OURS + "receiver-failed"
RECEIVER_RECOVERED = OURS + "receiver-recovered"

LONGEST_REASON = 500
LONGEST_MESSAGE = 200
"""Characters: an alert says where to look, and the dead letter has all of it."""

_MARK = "a1e27a1e"

Field: TypeAlias = str | int | float | bool | None


def is_alert(routing_keys: Collection[str]) -> bool:
    """Whether an event with one of these routing keys must never lead to an alert, whoever fails on it.

    Else a receiver of alerts that fails would be told of that by another alert, for ever.
    """
    return any(key.startswith(OURS) for key in routing_keys)


def has_id_of_alert(event_id: str) -> bool:
    """Whether an event with this id is an alert. The master knows nothing but the ids of what was in hand."""
    return event_id.startswith(_MARK) and event_id[14:15] == "8"


def dead_lettered(
    *,
    receiver: str,
    event_id: str,
    routing_keys: Collection[str],
    reason: str,
    error_type: str | None,
    error_message: str | None,
    retries: int,
    sent_at: float | None,
    dead_at: float,
    dropped: bool,
) -> DomainEvent | None:
    """About an event that was given up; None when nobody is to be told.

    routing_keys: as it was delivered, and as its body says; the last one is shown.
    dropped: there is no dead letter, for the receiver opted out of them.
    """
    if is_alert(routing_keys):
        return None
    return _alert(
        DEAD_LETTERED,
        receiver,
        id=printable(event_id),
        routing_key=printable([*routing_keys][-1]),
        reason=one_line(reason, LONGEST_REASON),
        error_type=None if error_type is None else one_line(error_type, LONGEST_MESSAGE),
        error_message=None if error_message is None else one_line(error_message, LONGEST_MESSAGE),
        retries=retries,
        sent_at=sent_at,
        dead_at=dead_at,
        dropped=dropped,
        pid=os.getpid(),
    )


def suppressed(receiver: str, n: int, seconds: float) -> DomainEvent:
    """`n` more events were given up in the last `seconds`, and nobody was told of each."""
    return _alert(SUPPRESSED, receiver, n=n, seconds=round(seconds, 3), pid=os.getpid())


def receiver_failed(receiver: str, *, slot: str, reason: str, restarts: int, pid: int) -> DomainEvent:
    """`reason`: why the last process ended, or could not begin; `pid`: of the master."""
    reason = one_line(reason, LONGEST_REASON)
    return _alert(RECEIVER_FAILED, receiver, slot=slot, state="failed", reason=reason, restarts=restarts, pid=pid)


def receiver_recovered(receiver: str, *, slot: str, restarts: int, pid: int) -> DomainEvent:
    """`pid`: of the master."""
    return _alert(RECEIVER_RECOVERED, receiver, slot=slot, state="consuming", restarts=restarts, pid=pid)


def _alert(kind: str, about: str, /, **data: Field) -> DomainEvent:
    whole: dict[str, Any] = {"receiver": about, **data, "host": socket.gethostname()}
    return DomainEvent(kind, whole, domain_object_id=about, uuid_string=_new_id())


def _new_id() -> str:
    """A UUID of version 8, "custom" (RFC 9562, section 5.8): random, but for the mark."""
    text = uuid4().hex
    return f"{_MARK}-{text[8:12]}-8{text[13:16]}-{text[16:20]}-{text[20:]}"
