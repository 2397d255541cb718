"""A replay with a canary under the real supervisor: it hears what really becomes of an event, and stops in time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.service import Service
from tests.acceptance.trouble import DEADLINE
from tests.processes import ROOT
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events"), "dead-letters"]


def replay(service: Service, *args: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, "replay", f"{service.prefix}work", "--broker", service.url, "--json", *args],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, f"{done.returncode}: {done.stderr}"
    numbers: dict[str, Any] = json.loads(done.stdout)
    return numbers


def dead(service: Service, n: int) -> None:
    service.queues.wait_count(f"{service.prefix}work:dead", n, DEADLINE)


def mend(service: Service, *numbers: int) -> None:
    """From now on the handler takes these."""
    with open(f"{service.ledger}.mended", "a") as file:
        file.writelines(f"{n}\n" for n in numbers)


def test_a_canary_that_dies_keeps_the_others_where_they_are(service: Service) -> None:
    master = service.start_consuming()
    service.send_many("work", range(30), do="fail")
    dead(service, 30)
    numbers = replay(service, "--all", "--canary", code=1)
    assert (numbers["replayed"], numbers["dead_again"]) == (1, 1)
    assert "was dead-lettered again: the handler raised ValueError" in numbers["stopped"]
    dead(service, 30)
    master.terminate()
    assert master.wait() == 0


def test_what_was_not_come_to_is_not_said_to_be_missing(service: Service) -> None:
    master = service.start_consuming()
    events = [service.send("work", n, do="fail") for n in range(3)]
    dead(service, 3)
    numbers = replay(service, "--canary", "--id", *(event.uuid_string for event in events), code=1)
    assert (numbers["replayed"], numbers["not_found"]) == (1, [])
    master.terminate()
    assert master.wait() == 0


def test_when_the_canary_is_handled_the_others_follow_and_are_counted(service: Service) -> None:
    master = service.start_consuming()
    service.send_many("work", range(150), do="fail unless mended")
    dead(service, 150)
    mend(service, *range(150))
    numbers = replay(service, "--all", "--canary")
    assert (numbers["replayed"], numbers["handled"], numbers["unknown"]) == (150, 150, 0)
    service.wait_handled(range(150))
    master.terminate()
    assert master.wait() == 0


def test_it_stops_when_one_of_the_others_fails_for_the_same_cause(service: Service) -> None:
    master = service.start_consuming()
    service.send_many("work", range(400), do="fail unless mended")
    dead(service, 400)
    # A look may change their order: the first one is any of those.
    mend(service, *(n for n in range(400) if n % 10 or n < 20))
    numbers = replay(service, "--all", "--canary", code=1)
    assert numbers["replayed"] < 400
    if numbers["replayed"] > 1:  # else it was the canary
        assert "for the same cause" in numbers["stopped"]
    # What was replayed before it stopped may be on its way still.
    letters = f"{service.prefix}work:dead"
    wait_until(lambda: len(service.handled()) + (service.queues.count(letters) or 0) == 400, what="all at their end")
    master.terminate()
    assert master.wait() == 0


def test_a_canary_that_is_retried_is_waited_for(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 1, do="fail unless mended")
    dead(service, 1)
    mend(service, 1)
    Path(f"{service.ledger}.retries").touch()
    numbers = replay(service, "--all", "--canary")
    # That it is retried need not be told first: it may be handled before the queue of its delay is old enough.
    assert (numbers["handled"], numbers["dead_again"], numbers["unknown"]) == (1, 0, 0)
    assert [note["retries"] for note in service.notes("begin")] == [0, 0, 1]
    master.terminate()
    assert master.wait() == 0


def test_without_a_receiver_the_canary_is_not_waited_for_longer_than_told(service: Service) -> None:
    master = service.start_consuming()
    service.send_many("work", range(3), do="fail")
    dead(service, 3)
    master.terminate()
    assert master.wait() == 0
    numbers = replay(service, "--all", "--canary", "--timeout", "0.5", code=1)
    assert (numbers["replayed"], numbers["unknown"]) == (1, 1)
    assert "is the receiver running?" in numbers["stopped"]
    dead(service, 2)


def test_a_canary_that_kills_its_child_is_heard_of_in_the_end(service: Service) -> None:
    """Its outcome is told by the child that condemns it."""
    master = service.start_consuming("--backoff", "0.05:0.2", "--max-event-crashes", "2")
    service.send("work", 1, do="fail unless mended")
    dead(service, 1)
    Path(f"{service.ledger}.kills").touch()
    numbers = replay(service, "--all", "--canary", code=1)
    assert "was dead-lettered again: consumer died 2x (SIGKILL)" in numbers["stopped"]
    # The first child may have died before the original's ack, which waits until the queue of its copy is old enough.
    wait_until(lambda: service.queues.count(f"{service.prefix}work:dead") in (1, 2), what="the dead letter")
    master.terminate()
    assert master.wait() == 0
