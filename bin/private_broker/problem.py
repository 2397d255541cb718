"""How the command speaks to its user."""

from __future__ import annotations

import sys


class Problem(Exception):
    """Something to tell the user in one message, without a traceback."""


def say(text: object) -> None:
    """Progress and problems go to standard error: standard output is for `eval`."""
    print(f"broker: {text}", file=sys.stderr, flush=True)
