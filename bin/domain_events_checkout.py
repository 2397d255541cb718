"""The commands of a checkout: with its own .venv when this Python has not got what they need.

The long name is on purpose: this folder is on the module search path of the applications that are started from it.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("pika", "setproctitle", "multiprocessing_logging")
CONFIGURATION = 78  # sysexits.h


def run(command: str) -> int:
    """The exit code of the `main` of a module, as domain_events.cli.supervisor."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        python = ROOT / ".venv" / "bin" / "python"
        # Not from within: a .venv that lacks them as well would send us round in circles.
        if python.exists() and Path(sys.prefix).resolve() != python.parent.parent.resolve():
            os.execv(python, [str(python), *sys.argv])
        print(
            f"{Path(sys.argv[0]).name}: this Python ({sys.executable}) has no {', '.join(missing)}; "
            f"make an environment with: python3 -m venv {ROOT}/.venv && {ROOT}/.venv/bin/pip install -e {ROOT}",
            file=sys.stderr,
        )
        return CONFIGURATION
    sys.path.insert(0, str(ROOT))
    return int(importlib.import_module(command).main())
