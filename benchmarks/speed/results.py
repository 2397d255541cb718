"""What was measured, read from a folder of results: one value for each number that a round gave."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS = "results.jsonl"
MACHINE = "machine.json"


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds gave for one number."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def most(self) -> float:
        return max(self.rounds)


@dataclass(frozen=True, slots=True)
class Measured:
    """One peer in one case, all rounds of it."""

    scenario: str
    case: str
    peer: str
    values: dict[str, dict[int, float]]
    """By name, then by round: a round that failed has none."""
    errors: tuple[str, ...]

    def spread(self, name: str) -> Spread | None:
        """None when no round gave this number."""
        rounds = self.values.get(name)
        return Spread(tuple(rounds.values())) if rounds else None

    def ratio(self, reference: Measured, name: str) -> float | None:
        """The median over the rounds of this peer's number by that of `reference` in the same round.

        Within a round both met the same machine; medians of different rounds would compare different hours of it.
        None when they have no round in common.
        """
        mine, theirs = self.values.get(name, {}), reference.values.get(name, {})
        ratios = [mine[number] / theirs[number] for number in mine if theirs.get(number)]
        return statistics.median(ratios) if ratios else None


def read(folder: Path) -> list[Measured]:
    """In the order in which scenarios, cases and peers first came. Raises ValueError for a line that is no result."""
    found: dict[tuple[str, str, str], Measured] = {}
    errors: dict[tuple[str, str, str], list[str]] = {}
    for number, line in enumerate((folder / RESULTS).read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            key = entry["scenario"], entry["case"], entry["peer"]
            measured = found.setdefault(key, Measured(*key, values={}, errors=()))
            if "error" in entry:
                errors.setdefault(key, []).append(entry["error"])
            for name, value in entry.get("values", {}).items():
                measured.values.setdefault(name, {})[entry["round"]] = float(value)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / RESULTS}:{number}: this is no result: {error!r}") from error
    return [
        Measured(*key, values=measured.values, errors=tuple(errors.get(key, ()))) for key, measured in found.items()
    ]


def machine(folder: Path) -> dict[str, object]:
    """Machine and versions, as the run wrote them down; empty when it did not."""
    path = folder / MACHINE
    found = json.loads(path.read_text()) if path.exists() else {}
    assert isinstance(found, dict)
    return found


def names_of(measured: Iterable[Measured]) -> list[str]:
    """All names of values in them, as they first came."""
    return list(dict.fromkeys(name for each in measured for name in each.values))


class Writer:
    """Writes a new file of results: each line is there as soon as it is measured."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("")
        self.failures = 0

    def write(self, scenario: str, case: str, peer: str, number: int, values: dict[str, float]) -> None:
        self._append({"scenario": scenario, "case": case, "peer": peer, "round": number, "values": values})

    def write_error(self, scenario: str, case: str, peer: str, number: int, error: Exception) -> None:
        self.failures += 1
        text = f"{type(error).__name__}: {error}"
        self._append({"scenario": scenario, "case": case, "peer": peer, "round": number, "error": text})

    def _append(self, entry: dict[str, object]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
