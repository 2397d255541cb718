"""What the page shows, from what the master, the counters and the broker say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain_events.web.depths import Depth
from domain_events.web.rates import Counts, counts_of

BAD = ("failed", "backoff")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverView:
    name: str
    state: str
    processes: Sequence[Mapping[str, Any]]  # as the master inspects them
    rates: Counts | None
    counts: Counts
    depth: Depth
    last_exit: Mapping[str, Any] | None
    last_exit_age: float  # seconds
    stacks: Sequence[Mapping[str, Any]]
    has_dead_letters: bool

    @property
    def consuming(self) -> int:
        return sum(each["state"] == "consuming" for each in self.processes)

    @property
    def restarts(self) -> int:
        return sum(each["restarts"] for each in self.processes)

    @property
    def in_hand(self) -> int:
        return sum(each["in_hand_count"] for each in self.processes)

    @property
    def reasons(self) -> Sequence[str]:
        """Why it is not as it should be."""
        return list(dict.fromkeys(each["reason"] for each in self.processes if each["reason"]))

    @property
    def oldest(self) -> float | None:
        """Seconds that the event longest in hand has been there."""
        return max((event["seconds"] for each in self.processes for event in each["in_hand"]), default=None)

    @property
    def last_exit_text(self) -> str:
        last = self.last_exit
        if last is None:
            return ""
        return str(last["signal"] or ("unknown" if last["code"] is None else f"exit {last['code']}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    version: str
    master: Mapping[str, Any]
    receivers: Sequence[ReceiverView]

    @property
    def consuming(self) -> int:
        return sum(each.state == "consuming" for each in self.receivers)

    @property
    def problems(self) -> Sequence[str]:
        """Of brokers that do not tell their depths."""
        return list(dict.fromkeys(each.depth.problem for each in self.receivers if each.depth.problem))

    def total(self, what: str) -> int | None:
        """Of `queue`, `retry` or `dead`; None where nothing is known."""
        known = [value for each in self.receivers if (value := getattr(each.depth, what)) is not None]
        return sum(known) if known else None

    def rate(self, what: str) -> float | None:
        known = [getattr(each.rates, what) for each in self.receivers if each.rates is not None]
        return sum(known) if known else None


def overview(
    inspection: Mapping[str, Any],
    rates: Callable[[str], Counts | None],
    depths: Mapping[str, Depth],
    *,
    setting_aside: Callable[[str], bool],
    now: float,
) -> Overview:
    """`setting_aside`: whether a receiver has dead letters. `now`: Unix seconds."""
    return Overview(
        version=inspection["version"],
        master=inspection["master"],
        receivers=[
            ReceiverView(
                name=each["name"],
                state=each["state"],
                processes=each["processes"],
                rates=rates(each["name"]),
                counts=counts_of(each),
                depth=depths.get(each["name"], Depth()),
                last_exit=each["last_exit"],
                last_exit_age=max(0.0, now - each["last_exit"]["at"]) if each["last_exit"] else 0.0,
                stacks=each["stacks"],
                has_dead_letters=setting_aside(each["name"]),
            )
            for each in inspection["receivers"]
        ],
    )
