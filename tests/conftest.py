"""What every test gets: fixtures, a clean environment, and only the tests this broker is good for."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.brokers", "tests.databases", "tests.processes"]

_left_out = pytest.StashKey[int]()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.startswith(("DOMAIN_EVENT_", "DOMAIN_EVENTS_")):
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # Whoever asks for a broker to kill owns it, marked or not.
        if {"own_broker", "own_queues"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.owns_broker)
    if not os.environ.get("AMQP_URL"):
        return
    owning = [item for item in items if item.get_closest_marker("owns_broker")]
    if owning:
        config.hook.pytest_deselected(items=owning)
        items[:] = [item for item in items if item not in set(owning)]
    config.stash[_left_out] = len(owning)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    if _left_out not in config.stash:
        return []
    return [
        f"broker: AMQP_URL is set, so {config.stash[_left_out]} tests that must own the broker are left out"
    ]
