"""What a child says on its status pipe, and what its master makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from domain_events.supervisor.crew import MOST_DELAYS, Crew
from domain_events.supervisor.reports import Delayed, Reporter, Reports
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.slots import Booted, Consuming


@pytest.fixture
def pipe() -> Iterator[tuple[Reporter, Reports]]:
    reader, writer = os.pipe()
    reports = Reports(reader)
    yield Reporter(writer), reports
    os.close(writer)
    reports.close()


def test_a_delay_is_no_state(pipe: tuple[Reporter, Reports]) -> None:
    reporter, reports = pipe
    reporter.booted()
    reporter.consuming()
    reporter.delayed(300)
    assert not reporter.consuming()  # it still does: no news
    assert reports.read() == [Booted(), Consuming(), Delayed(300)]


@pytest.mark.parametrize("rest", [b"", b" ", b" -1", b" \xb2", b" 1e3", b" x"])
def test_what_somebody_else_writes_is_passed_over(pipe: tuple[Reporter, Reports], rest: bytes) -> None:
    reporter, reports = pipe
    os.write(reporter._fd, b"delayed" + rest + b"\n")
    assert reports.read() == []


def test_the_newest_delays_of_a_receiver_are_remembered() -> None:
    crew = Crew(Arena())
    for delay in range(1, MOST_DELAYS + 11):
        crew.note_delay("printer", delay)
    crew.note_delay("printer", 11)  # used again
    crew.note_delay("mailer", 1)
    assert len(crew.delays["printer"]) == MOST_DELAYS
    assert list(crew.delays["printer"]) == [*range(12, MOST_DELAYS + 11), 11]
    assert list(crew.delays["mailer"]) == [1]
