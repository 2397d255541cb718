"""What became of an event, told to whoever asks for it in its headers, as a replay of dead letters does. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, assert_never, get_args

from pika import BasicProperties

from domain_events.policy import Handled, RetryLater, SetAside
from domain_events.policy import Outcome as Decision
from domain_events.transport.dead_letters.fingerprint import fingerprint_of
from domain_events.transport.settlement import Copy, Settlement
from domain_events.transport.wire import ERROR_TYPE, OUTCOME_TO, TRACEBACK, text_in

PREFIX = "domain-events.outcomes."
"""Of the queues that outcomes are sent to. No header can make a receiver write into another one."""

_LONGEST_NAME = 100  # ASCII characters: a queue's name has 255 bytes at most, and what is longer could not be sent

Kind: TypeAlias = Literal["handled", "retried", "dead-lettered", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`delay`: seconds until a retry comes. `fingerprint`: the key of that which its dead letter has."""

    id: str
    kind: Kind
    delay: float | None = None
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None

    @property
    def is_final(self) -> bool:
        return self.kind != "retried"


def asked_for(properties: BasicProperties) -> str | None:
    """The queue that the outcome is to be sent to."""
    name = text_in(properties.headers, OUTCOME_TO)
    if name is None or not name.startswith(PREFIX) or not name.isascii() or len(name) > _LONGEST_NAME:
        return None
    return name


def outcome_of(event_id: str, decision: Decision, settlement: Settlement) -> Outcome:
    match decision:
        case Handled():
            return Outcome(id=event_id, kind="handled")
        case RetryLater(delay=delay):
            return Outcome(id=event_id, kind="retried", delay=delay)
        case SetAside(reason=reason):
            if not isinstance(settlement, Copy):
                return Outcome(id=event_id, kind="dropped", reason=reason)
            headers = settlement.properties.headers or {}
            error_type = text_in(headers, ERROR_TYPE)
            return Outcome(
                id=event_id,
                kind="dead-lettered",
                reason=reason,
                error_type=error_type,
                fingerprint=fingerprint_of(error_type, text_in(headers, TRACEBACK), reason).key,
            )
    assert_never(decision)


def write_outcome(outcome: Outcome) -> bytes:
    return json.dumps(asdict(outcome)).encode("ascii")


def read_outcome(body: bytes) -> Outcome | None:
    """None: it is none of ours. Anybody may write into the queue who knows its name."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    texts = {name: _text(said, name) for name in ("id", "reason", "error_type", "fingerprint")}
    delay = said.get("delay")
    if texts["id"] is None or said.get("kind") not in get_args(Kind):
        return None
    return Outcome(
        id=texts["id"],
        kind=said["kind"],
        delay=float(delay) if isinstance(delay, (int, float)) and 0 <= delay < 1e10 else None,
        reason=texts["reason"],
        error_type=texts["error_type"],
        fingerprint=texts["fingerprint"],
    )


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    return value[:10_000] if isinstance(value, str) else None
