"""Which of the receivers run, and in how many processes: --only, --except and --processes. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from domain_events.registration import Registration
from domain_events.supervisor.options import Options, UsageError


def select(registrations: Sequence[Registration], options: Options) -> tuple[Registration, ...]:
    """Raises UsageError for an unknown name, or when none is left."""
    known = [registration.name for registration in registrations]
    _check("--only", options.only, known)
    _check("--except", options.except_, known)
    _check("--processes", options.processes, known)
    chosen = tuple(
        replace(registration, processes=options.processes.get(registration.name, registration.processes))
        for registration in registrations
        if (not options.only or registration.name in options.only) and registration.name not in options.except_
    )
    if not chosen:
        raise UsageError(f"--only and --except leave no receiver of {', '.join(known)}")
    return chosen


def _check(flag: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(sorted(known))}"
            raise UsageError(f"{flag}: there is no receiver {name!r}; {hint}")
