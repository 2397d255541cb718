"""What every test gets: fixtures, a clean environment, and only the tests this broker is good for."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import hypothesis
import pytest

# By default an example that takes 0.2 s fails: machines are shared.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = ["tests.brokers", "tests.browsers", "tests.databases", "tests.processes", "tests.service_manager"]

_left_out = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends the run as Ctrl-C does: with the fixtures' clean-up, so that no process is left."""
    runner = os.getpid()

    def stop(signum: int, frame: object) -> None:
        if os.getpid() == runner:
            raise KeyboardInterrupt
        # A child that a test has forked: for it, SIGTERM is what it was.
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Some tests log lone surrogates. Those cannot go from a worker to who puts the reports together."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.startswith(("DOMAIN_EVENT_", "DOMAIN_EVENTS_")):
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
    return [f"broker: AMQP_URL is set, so {config.stash[_left_out]} tests that must own the broker are left out"]
