"""The only place that forks: a child that starts clean and never returns into the stack of its parent."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import multiprocessing.util
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn

from domain_events.supervisor.exits import ChildExit
from domain_events.supervisor.logs import held_across_fork
from domain_events.supervisor.signals import blocked_signals, forget_master_signals
from domain_events.supervisor.stderr import flush_unless_full, write_stderr

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36

Mask = Collection[int]


def settle_memory() -> None:
    """To be called once, when everything is imported and nothing is forked yet.

    Frozen objects are left alone by the collector of every child, so the pages they live on stay shared.
    """
    gc.collect()
    gc.freeze()


def spawn(main: Callable[[Mask], int], abandon: Callable[[], None]) -> int:
    """Fork; in the child call `abandon`, then `main`, and end with its result. Returns the child's pid.

    `abandon` closes what belongs to the master. `main` gets the signal mask to set once its handlers are
    installed: until then every signal waits. Raises OSError when the system has no process for us.
    """
    for stream in (sys.stdout, sys.stderr):
        # Or the child has a copy of what was not written yet. Nobody may be there to read: no reason not to fork.
        with suppress(OSError, ValueError):
            flush_unless_full(stream)
    with blocked_signals() as mask:
        with held_across_fork(), warnings.catch_warnings():
            # From 3.12 on os.fork() warns when there are threads. Ours are the log readers, held meanwhile.
            warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _live(main, abandon, mask)
    return pid


def spawn_away(main: Callable[[Mask], int], abandon: Callable[[], None]) -> int:
    """As `spawn`, but the new process becomes a child of the next subreaper above us (prctl(2)): our master.

    By way of a process in between, which ends at once. When this returns the master has got its child.
    """
    told, tell = os.pipe()

    def fork_again(mask: Mask) -> int:
        middle = os.getpid()
        os.close(told)
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid:
            with contextlib.suppress(BrokenPipeError):  # who asked has been killed meanwhile
                os.write(tell, b"%d" % pid)
            return 0
        os.close(tell)
        while os.getppid() == middle:
            time.sleep(0.001)  # it is about to end, and only then is our parent the master
        return main(mask)

    try:
        middle = spawn(fork_again, abandon)
    except OSError:
        os.close(told)
        raise
    finally:
        os.close(tell)
    with open(told, "rb") as answers:
        number = int(answers.read(32) or -errno.ECHILD)
    os.waitpid(middle, 0)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return number


def adopt_orphans() -> None:
    """Whoever of our descendants loses its parent becomes our child (prctl(2)), as for the process with pid 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> bool:
    """Be killed when the parent dies; False when it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    return os.getppid() == parent


ORPHANED_SIGNAL = int(signal.SIGRTMIN)
"""What the kernel tells an orphan. Not SIGTERM: that asks for a drain, and it comes so early in the end of a
master with threads that its pid and its pipes are still there to be seen."""


def tell_when_orphaned(parent: int) -> bool:
    """Ask for ORPHANED_SIGNAL at the death of the parent; False when it is dead already (prctl(2))."""
    # Where there is no prctl, the lifeline pipe has to do.
    _prctl(_PR_SET_PDEATHSIG, ORPHANED_SIGNAL)
    return os.getppid() == parent


# Looked up here: ctypes makes a class for each CDLL, and each child would have its own.
_libc_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)


def _prctl(option: int, argument: int) -> None:
    if _libc_prctl is not None:
        _libc_prctl(option, argument, 0, 0, 0)


def _live(main: Callable[[Mask], int], abandon: Callable[[], None], mask: Mask) -> NoReturn:
    code: int = ChildExit.BOOT_FAILED
    try:
        # What multiprocessing's own children do first. Without it the finalizers of the master's queues would
        # run here too, and its locks would still be counted as held.
        multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]
        multiprocessing.util._run_after_forkers()  # type: ignore[attr-defined]
        forget_master_signals()
        abandon()
        # The random module has seeded itself again: it does so after every fork.
        code = main(mask)
    except BaseException:  # noqa: BLE001  nothing may escape, whatever it is: above us is the master's loop
        write_stderr(traceback.format_exc().encode(errors="backslashreplace"), 0.5)
    finally:
        os._exit(code)
