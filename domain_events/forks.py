"""The end of a process that a handler has forked and that comes back from it: it has no event of its own."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn


def end_fork(error: BaseException) -> NoReturn:
    """As Python ends with this error, but without the exit functions: those are of the process that was forked."""
    code = 1
    match error:
        case SystemExit(code=None):
            code = 0
        case SystemExit(code=int(number)):
            code = number & 0xFF
        case SystemExit(code=text):
            _say(f"{text}\n")
        case _:
            _say("".join(traceback.format_exception(error)))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    os._exit(code)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
