"""The C client: two programs on librabbitmq, the mark to measure against.

They do what the protocol asks for and nothing else: no JSON, no handler, no reconnecting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.speed.contest import Failed, last_words

SOURCES = Path(__file__).parent
PROGRAMS = ("consume", "publish")
CACHE = SOURCES.parents[3] / ".cache" / "bench"


def build() -> Path | None:
    """Compile what is not compiled yet; the folder with the programs. None: no compiler, or no librabbitmq."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    for name in PROGRAMS:
        program = CACHE / name
        if program.exists() and program.stat().st_mtime > newest:
            continue
        made = CACHE / f"{name}.{os.getpid()}"
        command = [compiler, "-O2", "-Wall", "-Wextra", "-o", made, SOURCES / f"{name}.c", "-lrabbitmq"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            if b"amqp.h" in done.stderr:
                return None
            raise Failed(f"{name}.c does not compile: {last_words(done)}")
        made.rename(program)  # another run may be using the old one
    return CACHE
