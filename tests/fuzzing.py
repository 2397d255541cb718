"""How long the fuzz tests look. HOSTILE_EXAMPLES=200000 for a long run, which takes other examples each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "0"))

fuzz = settings(
    max_examples=_EXAMPLES or 150,
    derandomize=not _EXAMPLES,  # the same examples in each short run: a failure can be repeated
    print_blob=True,  # and after a long one, with what it prints
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
