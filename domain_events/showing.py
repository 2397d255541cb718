"""Foreign text for people: nothing in it can begin a line, move a cursor, change colours or turn the writing around."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """`text` on one line: what is not printable (str.isprintable), but for the characters in `keep`, as its escape.

    That is control characters, line separators of all kinds, marks of direction (CVE-2021-42574) and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def one_line(text: str, longest: int) -> str:
    """`text` as words with single spaces in between, printable; more than `longest` characters are cut at the end."""
    # Cut first, too: a text of megabytes is not worth a walk through all of it.
    line = printable(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest and len(text) <= 2 * longest else f"{line[: longest - 4]} ..."
