"""Columns that are as wide as they have to be. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Paint: TypeAlias = Callable[[str, str], str]
"""From a column's title and a padded cell to the same in colour."""

LOOKED_AT = 8
"""Characters for each column, of which some have no width."""

_MARK = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    right: bool = False  # aligned, as numbers
    least: int | None = None  # how narrow it may become to fit; None: as wide as it is


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    paint: Paint = lambda title, cell: cell,
) -> list[str]:
    """The lines, the titles first. `width`: of the terminal; None: there is none, and nothing is shortened.

    When it is too wide, first the gaps become narrow, then the columns that may. Cells are printable.
    """
    lines = [[column.title for column in columns], *rows]
    widths = [max(text_width(line[number]) for line in lines) for number in range(len(columns))]
    gap = 2
    if width is not None and _total(widths, gap) > width:
        gap = 1
        for number, column in enumerate(columns):
            excess = _total(widths, gap) - width
            if column.least is not None and excess > 0:
                widths[number] = max(widths[number] - excess, min(column.least, widths[number]))
    return [
        (" " * gap)
        .join(
            paint(column.title, _padded(shortened(cell, size), size, column.right))
            for column, cell, size in zip(columns, line, widths, strict=True)
        )
        .rstrip()
        for line in lines
    ]


def text_width(text: str) -> int:
    """In columns of a terminal: some characters take two, some none."""
    return sum(_char_width(char) for char in text)


def shortened(text: str, width: int) -> str:
    """The beginning and the end: the end of a slot's name tells it from its brothers."""
    if text_width(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return f"{_cut(text, head)}{_MARK}{_cut(text[::-1], width - 1 - head)[::-1]}"


def beginning(text: str, width: int) -> str:
    """What fits, and a mark when that is not all. Of a text of megabytes only so much is looked at."""
    head = text[: LOOKED_AT * width]
    cut = _cut(head, width)
    return cut if len(cut) == len(text) else f"{_cut(head, width - 1)}{_MARK}"


def _cut(text: str, width: int) -> str:
    taken = 0
    for number, char in enumerate(text):
        taken += _char_width(char)
        if taken > width:
            return text[:number]
    return text


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - text_width(text))
    return space + text if right else text + space


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)
