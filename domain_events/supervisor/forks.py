"""What a handler forks: a process with its own signals, which never comes back into the life of our child."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Collection
from contextlib import suppress
from typing import NoReturn


def keep_signals_from_forks(numbers: Collection[int]) -> None:
    """What this process forks from now on, as with multiprocessing in a handler, has the default for these signals.

    Otherwise a SIGTERM meant for it would not end it, and it would be written to our wakeup descriptor, which a fork
    shares: we would take it for our own.
    """
    masks = threading.local()

    def hold_back() -> None:
        # Most of them come in the first instant, before the fork has forgotten our handlers.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def begin() -> None:
        signal.set_wakeup_fd(-1)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        go_on()

    os.register_at_fork(before=hold_back, after_in_parent=go_on, after_in_child=begin)


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
