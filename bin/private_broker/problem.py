"""How the command speaks to its user, and what it takes from its surroundings."""

from __future__ import annotations

import sys
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETUP = Path(__file__).resolve().parent.parent / "setup"


class Problem(Exception):
    """Something to tell the user in one message, without a traceback."""


def say(text: object) -> None:
    """Progress and problems go to standard error: standard output is for `eval`."""
    print(f"broker: {text}", file=sys.stderr, flush=True)
