"""The scenarios, each a module with `NAME` and `contests(rig)`: see benchmarks.speed.contest."""

import importlib
from types import ModuleType

NAMES = (
    "consume",
    "publish_one",
    "publish_many",
    "threads",
    "latency",
    "retries",
    "memory",
    "start",
    "heavy",
    "scaling",
    "growth",
)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
