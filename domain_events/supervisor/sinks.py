"""Sinks: the handlers that write. Children have stand-ins for them, so that each file has one writer, the master."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

from domain_events.supervisor.log_frames import Addressed
from domain_events.supervisor.turns import Turns

ROOT = logging.getLogger().name
"""The name of the root logger in `Sinks`."""

Sinks = dict[str, list[logging.Handler]]
"""By the name of the logger. Loggers without sinks are not in it."""

_turns: WeakKeyDictionary[logging.Handler, Turns] = WeakKeyDictionary()
_turns_guard = threading.Lock()


class StandIn:
    """A handler that stands at a logger for its sinks, which are called elsewhere."""

    sinks: Sequence[logging.Handler] = ()


def all_loggers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    yield root
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # and no placeholder
            yield logger


_with_handlers: list[logging.Logger] = []


def note_handlers() -> None:
    """Just before a fork, for `loggers_with_handlers` after it."""
    _with_handlers[:] = [logger for logger in all_loggers() if logger.handlers or logger.name == ROOT]


def loggers_with_handlers() -> Iterator[logging.Logger]:
    """In a child: the root, and those that had handlers when it was forked. To look at each logger there would copy
    the page on which it lies, and most have none."""
    return iter(_with_handlers)


def find_sinks() -> Sinks:
    """All that there are now, in the order of each logger."""
    return {logger.name: sinks for logger in all_loggers() if (sinks := sinks_of(logger))}


def sinks_of(logger: logging.Logger) -> list[logging.Handler]:
    found: list[logging.Handler] = []
    for handler in logger.handlers[:]:
        if isinstance(handler, StandIn):
            found += handler.sinks
        elif not isinstance(handler, logging.NullHandler):
            found.append(handler)
    return found


def replace(logger: logging.Logger, stand_in: logging.Handler) -> None:
    """In the place of its sinks, which the caller has to keep."""
    for handler in logger.handlers[:]:
        if not isinstance(handler, logging.NullHandler):
            logger.removeHandler(handler)
    logger.addHandler(stand_in)


def choose(
    sinks: Sequence[logging.Handler], record: logging.LogRecord
) -> list[tuple[logging.LogRecord, Sequence[int]]]:
    """What levels and filters let through, and to which sinks: by position."""
    positions: list[int] = []
    others: list[tuple[logging.LogRecord, Sequence[int]]] = []
    for position, sink in enumerate(sinks):
        if record.levelno < sink.level:
            continue
        try:
            kept: bool | logging.LogRecord = sink.filter(record)
        except Exception:  # noqa: BLE001  foreign code: whatever filter somebody has configured
            kept = _lost(record)  # not the record: the filter may be there to keep something out of a log
        if isinstance(kept, logging.LogRecord) and kept is not record:  # since Python 3.12
            others.append((kept, [position]))
        elif kept:
            positions.append(position)
    return [(record, positions), *others] if positions else others


def deliver(addressed: Addressed, sinks: Sinks) -> None:
    """To the sinks that shall have it; a LookupError when there are no such ones. Any thread, and it may wait."""
    record = addressed.record
    if addressed.logger is None:
        found = [logging.lastResort] if logging.lastResort is not None else []
    else:
        found = sinks[addressed.logger]
    chosen = choose(found, record) if addressed.positions is None else [(record, addressed.positions)]
    for kept, positions in chosen:
        for sink in [found[position] for position in positions]:
            write(sink, kept)


def write(sink: logging.Handler, record: logging.LogRecord) -> None:
    """A record that was chosen. In turns: one child that floods must not keep the others from a slow sink."""
    with _turns_of(sink):
        try:
            if type(sink).handle is logging.Handler.handle:
                # Not `handle`: the filters have seen the record itself in the child, in its context. What is
                # here has neither arguments nor an exception for them, and they would overwrite what they added.
                sink.acquire()
                try:
                    sink.emit(record)
                finally:
                    sink.release()
            else:
                sink.handle(record)
        except Exception:  # noqa: BLE001  foreign code: whatever handler somebody has configured
            with suppress(Exception):  # foreign code too
                sink.handleError(record)


def _turns_of(sink: logging.Handler) -> Turns:
    with _turns_guard:
        return _turns.setdefault(sink, Turns())


def _lost(record: logging.LogRecord) -> logging.LogRecord:
    text = "a filter has failed, and a record of %s is lost"
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, (record.name,), sys.exc_info())
