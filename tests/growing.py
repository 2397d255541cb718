"""A file that other processes append to while it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def whole_lines(path: str | Path) -> list[str]:
    """Those that end. Linux shows a write to whoever reads at the same moment in parts, a page each."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read().split("\n")[:-1]


def whole_objects(path: str | Path) -> list[dict[str, Any]]:
    """Of a file with a JSON object in each line."""
    return [json.loads(line) for line in whole_lines(path)]
