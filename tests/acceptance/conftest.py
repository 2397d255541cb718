"""The service under test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deploying import Connected, Deployed
from tests.acceptance.service import Service
from tests.brokers import Broker, Queues
from tests.processes import Processes


@pytest.fixture
def service(processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path) -> Service:
    return Service(processes, queues, broker.url, unique, tmp_path)


@pytest.fixture
def own_service(processes: Processes, own_broker: Broker, own_queues: Queues, unique: str, tmp_path: Path) -> Service:
    """On a broker that the test may kill."""
    return Service(processes, own_queues, own_broker.url, unique, tmp_path)


@pytest.fixture
def deployed(processes: Processes, tmp_path: Path) -> Deployed:
    """A service whose code changes; it needs no broker."""
    return Deployed(processes, tmp_path)


@pytest.fixture
def connected(processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path) -> Iterator[Connected]:
    """A service whose code changes, and its events."""
    yield Connected(processes, tmp_path, queues, broker.url, unique)
    processes.end()  # before the queues go: they would be made again
