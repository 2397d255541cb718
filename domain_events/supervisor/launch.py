"""How this command was started, so that it can be started again with new code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: str

    def again(self, extra: Mapping[str, str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start it once more, with these variables and descriptors. Raises OSError."""
        return subprocess.Popen(  # noqa: S603  our own command
            self.argv,
            executable=sys.executable,
            env={**self.environ, **extra},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
        )


_launch: Launch | None = None


def remember() -> None:
    """To be called first thing in `main`: before the application changes the environment or the directory."""
    global _launch
    if _launch is None:
        _launch = Launch(argv=tuple(sys.orig_argv), environ=dict(os.environ), cwd=_logical_directory())


def remembered() -> Launch:
    remember()
    assert _launch is not None
    return _launch


def _logical_directory() -> str:
    """By the name the shell has for it: where a deploy turns a symlink to the new release, we want the new one."""
    physical = os.getcwd()
    logical = os.environ.get("PWD", "")
    try:
        return logical if os.path.isabs(logical) and os.path.samefile(logical, physical) else physical
    except OSError:
        return physical
