"""Which dead letters somebody means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from domain_events.transport.dead_letters.letter import Letter

Condition: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""On an event, as the object that it is on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All of it must be true; None: whatever it is. Times in Unix seconds."""

    ids: frozenset[str] | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    routing_key: Callable[[str], bool] | None = None
    since: float | None = None
    before: float | None = None
    conditions: Sequence[Condition] = ()

    @property
    def is_everything(self) -> bool:
        return self == Wanted()

    def matches(self, letter: Letter) -> bool:
        """The body is read last, and only when it must be."""
        if self.error_type is not None and letter.error_type != self.error_type:
            return False
        if not self._is_of_the_time(letter.dead_at):
            return False
        if self.fingerprint is not None and letter.fingerprint.key != self.fingerprint:
            return False
        if self.ids is not None and letter.id not in self.ids:
            return False
        if self.routing_key is not None and not self.routing_key(letter.summary["routing_key"]):
            return False
        return not self.conditions or self._holds(letter.fields)

    def _is_of_the_time(self, dead_at: float | None) -> bool:
        if self.since is None and self.before is None:
            return True
        if dead_at is None:
            return False
        return (self.since is None or dead_at >= self.since) and (self.before is None or dead_at < self.before)

    def _holds(self, fields: Mapping[str, Any]) -> bool:
        return all(holds(fields) for holds in self.conditions)
