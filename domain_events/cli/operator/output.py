"""Data on stdout, words on stderr, neither with a traceback when nobody reads them."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
from collections.abc import Iterator, Mapping

from domain_events.errors import DomainEventError
from domain_events.showing import printable

PROGRAM = "domain-events"

_has_been_left = False


class OutputFailed(DomainEventError):
    """What was asked for cannot be written."""


def put(text: str) -> None:
    """Data, in whole lines. Raises OutputFailed."""
    if sys.stdout is not None:  # it was closed before we started
        with _readers_may_leave():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def flush() -> None:
    """What others have written to stdout, as argparse its help. Raises OutputFailed."""
    if sys.stdout is not None:
        with _readers_may_leave():
            sys.stdout.flush()


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    """When they have seen enough, as `head`."""
    try:
        yield
    except OSError as error:
        # What is still in the buffer must not fail once more at the end of the process.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        global _has_been_left
        _has_been_left = True
        if not isinstance(error, BrokenPipeError):
            raise OutputFailed(f"cannot write to stdout: {error.strerror}") from error


def somebody_reads() -> bool:
    """Whether stdout still leads to somebody; of a pipe it is known when its reader has left."""
    if sys.stdout is None or _has_been_left:
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # POLLERR comes unasked: poll(2)
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor, as where a test or a caller has put something else there
        return True


def say(text: str) -> None:
    """Words, for people. Whoever has closed stderr does not want them."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            # A traceback keeps its lines; whoever made a line up cannot hide that it is one of ours.
            lines = "\n    ".join(printable(line) for line in text.split("\n"))
            sys.stderr.write(f"{PROGRAM}: {lines}\n")
            sys.stderr.flush()


def tolerate_any_text() -> None:
    """Where the terminal's encoding has not got a character, its escape is shown."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not when a test or a caller has put something else there
            stream.reconfigure(errors="backslashreplace")


def terminal_width() -> int | None:
    """Columns; None when stdout is no terminal."""
    return shutil.get_terminal_size().columns if _is_terminal() else None


def has_colours(environ: Mapping[str, str]) -> bool:
    """https://no-color.org/"""
    return _is_terminal() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
