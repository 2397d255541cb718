"""How a master leaves: in time and with its own exit code, whatever its streams and the application's threads do."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

from domain_events.supervisor.stderr import write_stderr

_PATIENCE = 5.0  # seconds for the exit functions and the threads of the application


def leave(code: int) -> int:
    """To be called last, for the end of the process; gives back `code`.

    Exit functions still run, and threads that are no daemons are waited for, but not for ever: a service that has
    stopped must not be killed because of them.
    """
    with suppress(RuntimeError):  # no more threads: then without this
        threading.Thread(target=_leave_anyway, args=(code,), name="de-leaving", daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    return code


def _leave_anyway(code: int) -> None:
    time.sleep(_PATIENCE)
    main = threading.main_thread()
    names = [thread.name for thread in threading.enumerate() if not thread.daemon and thread is not main]
    what = f"the threads {', '.join(names)}" if names else "an exit function"
    line = f"domain-events-supervisor: leaving without {what} of the application, still there after {_PATIENCE:g} s\n"
    write_stderr(line.encode(errors="backslashreplace"), 0.5)
    os._exit(code)


def _flush(stream: TextIO | None) -> None:
    """A stream that takes nothing any more gets a bottomless file: else Python would turn the exit code into 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            fd = os.open(os.devnull, os.O_WRONLY)
            os.dup2(fd, stream.fileno())
            os.close(fd)
