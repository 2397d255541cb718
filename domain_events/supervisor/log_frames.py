"""What travels through the pipe of a child: a record and who shall have it, or a number of dropped ones. Pure.

JSON and not pickle: reading it can only give plain values, never run code, and it carries lone surrogates (as
escapes), which UTF-8 would refuse.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from domain_events.supervisor.records import STANDARD, from_values, to_values

FRAME_LIMIT = 4 * 1024 * 1024
"""Bytes of a frame. The texts of a record fit in at their limits with every character escaped."""


@dataclass(frozen=True, slots=True)
class Addressed:
    record: logging.LogRecord
    logger: str | None  # whose sinks shall have it; None: the last resort of `logging`
    positions: Sequence[int] | None  # which of them; None: those whose level and filters want it


@dataclass(frozen=True, slots=True)
class Dropped:
    n: int
    pid: int | None  # of the child


def pack(record: logging.LogRecord, logger: str | None, positions: Sequence[int] | None) -> bytes:
    values = to_values(record)
    frame = json.dumps([logger, positions, values]).encode("ascii")
    if len(frame) > FRAME_LIMIT:  # hundreds of long extra fields
        values = {name: value for name, value in values.items() if name in STANDARD}
        frame = json.dumps([logger, positions, values]).encode("ascii")
    return frame


def pack_dropped(n: int, pid: int) -> bytes:
    return json.dumps([n, pid]).encode("ascii")


def unpack(frame: bytes) -> Addressed | Dropped:
    """What was packed, or a ValueError."""
    match json.loads(frame):
        case [int(n), int(pid)]:
            return Dropped(n, pid)
        case [None | str() as logger, None | list() as positions, values] if all(
            isinstance(position, int) for position in positions or ()
        ):
            return Addressed(from_values(values), logger, positions)
        case _:
            raise ValueError("this is no frame")
