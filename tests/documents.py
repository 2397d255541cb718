"""README, changelog and docs/ as tests read them: their blocks of code and their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
_NOT_RUN = re.compile(r"<!-- not run:?(.*)-->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its fence, counted from 1."""

    document: str
    line: int
    language: str
    text: str
    not_run: str | None
    """What its comment gives as a reason; None without such a comment."""

    @property
    def program(self) -> str | None:
        """The file's name, when the block is a program to be saved and called with arguments."""
        found = re.match(r"# (\w+\.py): ", self.text)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(path: Path) -> Iterator[Block]:
    lines = path.read_text().splitlines()
    begin: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        comment = _NOT_RUN.fullmatch(lines[begin - 1]) if begin else None
        text = "\n".join(lines[begin + 1 : number])
        reason = comment[1].strip() if comment else None
        yield Block(path.relative_to(ROOT).as_posix(), begin + 1, lines[begin][3:].strip(), text, reason)
        begin = None
    assert begin is None, f"{path}:{begin}: this block has no end"


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def table(document: str, title: str) -> list[list[str]]:
    """The rows of all tables of a document whose first column is called `title`, without `|` escapes."""
    rows: list[list[str]] = []
    inside = False
    for line in (ROOT / document).read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if inside and set(cells[0]) != {"-"}:
            rows.append(cells)
        inside = inside or cells[0] == title
    return rows
