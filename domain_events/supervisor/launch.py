"""How this command was started, so that it can be started again with new code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HIDDEN_BROKER = "DOMAIN_EVENTS_HIDDEN_BROKER"
"""Holds what stands after --broker, for a process that is started again. Everybody can read its arguments (`ps`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    program: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: str

    def again(self, extra: Mapping[str, str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start it once more, with these variables and descriptors. Raises OSError."""
        argv, broker = _hide_broker(self.argv)
        hidden = {} if broker is None else {HIDDEN_BROKER: broker}
        return subprocess.Popen(  # noqa: S603  our own command
            argv,
            executable=self.program,
            env={**self.environ, **hidden, **extra},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
        )


_launch: Launch | None = None


def remember() -> None:
    """To be called first thing in `main`: before the application changes the environment or the directory."""
    global _launch
    if _launch is None:
        program, argv = _command()
        _launch = Launch(program=program, argv=argv, environ=dict(os.environ), cwd=_logical_directory())


def remembered() -> Launch:
    remember()
    assert _launch is not None
    return _launch


def _command() -> tuple[str, Sequence[str]]:
    """The program, and its arguments from the zeroth on.

    A script that names its interpreter, as pip makes them, is started by its own name: where a deploy turns a symlink
    to the environment of the new release, another interpreter stands in it.
    """
    argv = tuple(sys.orig_argv)
    if len(argv) > 1 and argv[1] == sys.argv[0] and _names_our_interpreter(argv[1]):
        return os.path.join(_logical_directory(), argv[1]), argv[1:]
    return sys.executable, argv


def _hide_broker(argv: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """The arguments without what stands after --broker, and that."""
    shown, broker = list(argv), None
    for index, argument in enumerate(argv):
        if argument.startswith("--broker="):
            broker, shown[index] = argument.partition("=")[2], "--broker=hidden"
        elif argument == "--broker" and argument != argv[-1]:
            broker, shown[index + 1] = argv[index + 1], "hidden"
    return shown, broker


def _names_our_interpreter(script: str) -> bool:
    # Where its path is too long for a first line, pip lets a shell start it: so it is in the second.
    try:
        with open(script, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and os.fsencode(sys.executable) in head and os.access(script, os.X_OK)


def occupy_standard_descriptors() -> None:
    """Whoever started us may have closed some: then a pipe of ours would get their number, and stray prints."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)  # also for what a handler starts
        fd = os.dup(fd)
    os.close(fd)


def _logical_directory() -> str:
    """By the name the shell has for it: where a deploy turns a symlink to the new release, we want the new one."""
    physical = os.getcwd()
    logical = os.environ.get("PWD", "")
    try:
        return logical if os.path.isabs(logical) and os.path.samefile(logical, physical) else physical
    except OSError:
        return physical
