"""Consume, or send events, by the way of one peer. See the package."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator


def paced(first: int, last: int, rate: float) -> Iterator[int]:
    """The numbers from `first` up to and with `last`, each when its time has come."""
    began = time.monotonic()
    for number in range(first, last + 1):
        if rate:
            time.sleep(max(0.0, began + (number - first) / rate - time.monotonic()))
        yield number


peer, order, *numbers = sys.argv[1:]
module = importlib.import_module(f"{__package__}.{peer}")
if order == "consume":
    os.execv(sys.executable, [sys.executable, *module.COMMAND])
first, last, rate = numbers
module.send(paced(int(first), int(last), float(rate)))
