"""What dead letters have in common: the type of the error, and where in the application it was raised. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from domain_events.showing import one_line

_FRAME = re.compile(r'^ +File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
_CHAINED = re.compile(r"^(?:The above exception was the direct cause|During handling of the above exception).*$", re.M)
_FOREIGN = re.compile(r"[/\\](?:site-packages|dist-packages|python3\.\d+t?|lib-dynload)[/\\]|^<")
"""Files that are not the application's: installed packages, and Python itself."""

_PARTS = 3
"""Of a path: an application may be installed elsewhere on another host."""

_NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_LONGEST_PLACE = 120
_LONGEST_TYPE = 200  # as we write it


@dataclass(frozen=True, slots=True)
class Fingerprint:
    error_type: str
    place: str
    """As `app/handlers.py in disable`; where there is no traceback, what the reason says, without its numbers."""

    @property
    def key(self) -> str:
        """Eight hex digits, the same on every host and in every version that raises in the same function."""
        from hashlib import blake2s  # a third of a MiB, which children that nobody asks can do without

        return blake2s(f"{self.error_type}\n{self.place}".encode(errors="replace"), digest_size=4).hexdigest()

    def __str__(self) -> str:
        return f"{self.error_type} at {self.place}" if self.place else self.error_type


def fingerprint_of(error_type: str | None, traceback: str | None, reason: str) -> Fingerprint:
    """`traceback`: as Python prints it, perhaps with its middle left out."""
    if error_type is not None:  # whoever has written it may have written anything
        error_type = one_line(error_type, _LONGEST_TYPE)
    place = _place(error_type, traceback) if traceback else None
    if place is not None:
        return Fingerprint(error_type or "", place)
    kind, colon, rest = reason.partition(": ")
    if error_type is None and colon:  # malformed: the body is not JSON
        return Fingerprint(one_line(kind, _LONGEST_PLACE), _without_values(rest))
    return Fingerprint(error_type or one_line(kind, _LONGEST_PLACE), _without_values(reason) if error_type else "")


def _place(error_type: str | None, traceback: str) -> str | None:
    """The last frame in code of the application, else the last one."""
    block = _block_of(error_type, traceback)
    frames = list(_FRAME.finditer(block))
    if not frames:
        return None
    own = [frame for frame in frames if not _FOREIGN.search(frame["file"])]
    frame = (own or frames)[-1]
    # Not its line, which moves whenever something above it is changed.
    path = "/".join(re.split(r"[/\\]", frame["file"])[-_PARTS:])
    return one_line(f"{path} in {frame['function']}", _LONGEST_PLACE)


def _block_of(error_type: str | None, traceback: str) -> str:
    """Of errors that led to one another: the one that counts, which need not be the last."""
    blocks = _CHAINED.split(traceback)
    if error_type is not None:
        raised = re.compile(rf"^(?:[\w.]+\.)?{re.escape(error_type)}(?::|$)", re.MULTILINE)
        for block in reversed(blocks):
            if raised.search(block) and _FRAME.search(block):
                return block
    return blocks[-1]


def _without_values(text: str) -> str:
    return one_line(_NUMBERS.sub("#", _QUOTED.sub("'…'", text)), _LONGEST_PLACE)
