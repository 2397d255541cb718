"""Which events are sent, who receives them, and what becomes of them there. Pure but for the dice.

An event's routing key is `soak.TOPIC`; its data tell the handler what to do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DELAYS = (0.0, 0.2, 0.5, 1.0, 2.5, 8.0)
"""Seconds that a retry may ask for."""
MAX_RETRIES = 4
TOO_OFTEN = MAX_RETRIES + 1

FIXED_RATES: Mapping[str, float] = {"slow": 2.0, "retry": 4.0, "fail": 1.5, "crash": 0.2, "turn": 3.0}
"""Events in a second of what takes long; the rest of the rate is `work`. More slow ones than this would pile up."""
TOPICS = ("work", *FIXED_RATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A receiver of the soak."""

    name: str
    topics: Sequence[str]
    processes: int = 1
    does: Literal["note", "sleep", "await", "retry", "fail", "crash"] = "note"
    threads: int = 1
    single_active: bool = False
    classic: bool = False

    @property
    def queue(self) -> str:
        return f"soak-{self.name}"

    @property
    def binding_keys(self) -> list[str]:
        return ["soak.#"] if set(self.topics) == set(TOPICS) else [f"soak.{topic}" for topic in self.topics]


FAST = "fast"
_KINDS = (
    Kind(name=FAST, topics=TOPICS),
    Kind(name="threads", topics=("work", "turn"), does="sleep", threads=8),
    Kind(name="coroutines", topics=("work", "retry"), does="await"),
    Kind(name="slow", topics=("slow",), does="sleep", processes=2),
    Kind(name="turns", topics=("turn", "slow"), processes=2, single_active=True),
    Kind(name="retrying", topics=("retry",), does="retry"),
    Kind(name="failing", topics=("fail", "slow"), does="fail"),
    Kind(name="crashing", topics=("crash",), does="crash"),
)
_CLASSIC = Kind(name="classic", topics=("work", "fail"), classic=True)


def kinds(nodes: int) -> tuple[Kind, ...]:
    """A classic queue lives on one node alone: it is promised nothing while that is down."""
    return (*_KINDS, _CLASSIC) if nodes == 1 else _KINDS


def draw_topic(rate: float, dice: random.Random) -> str:
    """As often as it shall be sent when all senders together send `rate` events in a second."""
    fixed = sum(FIXED_RATES.values())
    shrink = min(1.0, rate / 2 / fixed)  # at a low rate half of the events are work all the same
    weights = [rate - fixed * shrink, *(share * shrink for share in FIXED_RATES.values())]
    return dice.choices(TOPICS, weights)[0]


def draw_data(topic: str, dice: random.Random) -> dict[str, Any]:
    """What the handlers shall do with it."""
    match topic:
        case "slow":
            return {"seconds": round(dice.uniform(0.05, 0.5), 3)}
        case "retry":
            times = TOO_OFTEN if dice.random() < 0.1 else dice.randint(0, MAX_RETRIES)
            return {"retries": times, "delays": [dice.choice(DELAYS) for _ in range(MAX_RETRIES + 1)]}
        case "crash":
            [kills] = dice.choices(["never", "once", "always"], [3, 6, 1])
            return {"kills": kills, "how": dice.choice(["SIGKILL", "SIGSEGV", "exit"])}
        case _:
            return {"seconds": round(dice.uniform(0.0, 0.02), 3)}
