"""What the command tells systemd while it starts, works, reloads, drains and hangs."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from domain_events.supervisor.exits import MasterExit
from tests.acceptance.deploying import Deployed
from tests.acceptance.service import COMMAND, Service
from tests.processes import Handle, Processes
from tests.service_manager import Manager
from tests.waiting import wait_until

NOBODY_THERE = "amqp://guest:very-secret@127.0.0.1:1/%2F"

Start = Callable[..., Handle]


@pytest.fixture
def start(processes: Processes, service: Service, manager: Manager, tmp_path: Path) -> Start:
    """Starts the command as the unit does: no arguments, the broker in a credential."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()

    def start(broker: str = service.url, **env: str) -> Handle:
        (credentials / "broker").write_text(f"{broker}\n")
        (credentials / "broker").chmod(0o400)
        return processes.start(
            [sys.executable, COMMAND],
            env={
                "DOMAIN_EVENTS_MODULES": "tests.acceptance.receivers",
                "CREDENTIALS_DIRECTORY": str(credentials),
                "NOTIFY_SOCKET": manager.path,
                "TEST_PREFIX": service.prefix,
                "TEST_LEDGER": str(service.ledger),
                **env,
            },
        )

    return start


def test_systemd_hears_that_the_service_is_ready_and_how_many_receivers_consume(
    start: Start, service: Service, manager: Manager
) -> None:
    master = start()
    manager.wait_word("READY=1")
    assert len(master.children()) == 2, "ready before the children had booted"
    manager.wait_word("STATUS=2/2 consuming")
    service.send("work", 1)
    service.wait_handled(range(1, 2))
    master.terminate()
    assert master.wait() == 0
    assert manager.listen().count("READY=1") == 1


def test_a_stop_is_announced_before_anything_else_and_the_event_in_hand_is_finished(
    start: Start, service: Service, manager: Manager
) -> None:
    master = start()
    manager.wait_word("STATUS=2/2 consuming")
    service.send("work", 1, do="wait")
    service.wait_begun(1)
    before = len(manager.listen())
    master.terminate()
    manager.wait_word("STOPPING=1")
    manager.wait(lambda word: word.startswith("STATUS=stopping, 1 child"), "who is left")
    assert not service.handled()
    service.go_on()
    assert master.wait() == 0
    assert service.handled() == {1: 1}
    after = manager.listen()[before:]
    assert after[0] == "STOPPING=1"
    assert after[-1] == "STATUS=stopped"
    assert "READY=1" not in after


def test_without_a_broker_the_service_is_ready_and_its_status_says_why_nothing_consumes(
    start: Start, service: Service, manager: Manager
) -> None:
    master = start(NOBODY_THERE)
    manager.wait_word("READY=1")
    status = manager.wait(lambda word: "Connection refused" in word, "the reason")
    assert status.startswith("STATUS=0/2 consuming; ")
    master.terminate()
    assert master.wait() == 0
    assert "very-secret" not in "".join(manager.listen())


def test_the_death_of_a_child_changes_the_status_and_nothing_else(
    start: Start, service: Service, manager: Manager
) -> None:
    master = start()
    manager.wait_word("STATUS=2/2 consuming")
    before = len(manager.listen())
    first, second = master.children()
    os.kill(first, signal.SIGKILL)

    def after(text: str) -> bool:
        return any(text in word for word in manager.listen()[before:])

    wait_until(lambda: after("#0 backoff: SIGKILL"), what="the reason in the status")
    wait_until(lambda: after("STATUS=2/2 consuming"), what="both consume again")
    assert second in master.children()
    master.terminate()
    assert master.wait() == 0
    assert manager.listen().count("READY=1") == 1
    assert manager.speakers == {master.pid}, "NotifyAccess=main would not have heard the others"


def test_a_module_that_is_not_there_is_no_start(start: Start, manager: Manager) -> None:
    master = start(DOMAIN_EVENTS_MODULES="tests.acceptance.no_such_module")
    assert master.wait() == MasterExit.CONFIGURATION
    assert "READY=1" not in manager.listen()


def test_a_blank_credential_leaves_the_broker_to_the_environment(
    start: Start, service: Service, manager: Manager
) -> None:
    master = start("", DOMAIN_EVENT_BROKER=service.url)
    manager.wait_word("STATUS=2/2 consuming")
    master.terminate()
    assert master.wait() == 0


# Reloads


HANDED_DOWN = """
receive('one')

@child_started
def look():
    names = {'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'} & set(os.environ)
    logging.getLogger('app').warning('handed down: %s', sorted(names))
"""


@pytest.fixture
def told(deployed: Deployed, manager: Manager) -> Deployed:
    """A service whose code changes, under a service manager; it consumes."""
    deployed.app.write("v1", HANDED_DOWN)
    deployed.env |= {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000000"}
    deployed.start(children=1)
    manager.wait_word("STATUS=1/1 consuming")
    return deployed


def test_a_reload_begins_with_its_time_and_ends_with_ready(told: Deployed, manager: Manager) -> None:
    told.app.write("v2", HANDED_DOWN)
    before = len(manager.listen())
    begin = time.monotonic_ns() // 1000
    told.master.handle.send(signal.SIGHUP)
    manager.wait_word("READY=1", before)
    words = manager.listen()[before:]
    [reloading] = [word for word in words if word.startswith("RELOADING=1")]
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
    assert found
    assert begin <= int(found[1]) <= time.monotonic_ns() // 1000
    statuses = [word for word in words if word.startswith("STATUS=reloading: ")]
    assert statuses[0] == "STATUS=reloading: the new code is imported; 1/1 consuming"
    assert words.index(reloading) < words.index("READY=1")
    assert words.index(statuses[-1]) < words.index("STATUS=1/1 consuming")
    assert told.master.stop() == 0
    assert manager.speakers == {told.master.pid}
    assert told.master.handle.output().count("handed down: []") == 2, "children of the old and of the new code"


def test_a_reload_of_broken_code_ends_with_ready_too(told: Deployed, manager: Manager) -> None:
    told.app.write_text("import no_such_module\n")
    before = len(manager.listen())
    told.master.handle.send(signal.SIGHUP)
    manager.wait(lambda word: word.startswith("RELOADING=1"), "the reload", before)
    manager.wait_word("READY=1", before)
    manager.wait_word("STATUS=1/1 consuming", before)
    assert told.master.stop() == 0


# A loop that hangs, and one that waits


def test_a_master_whose_loop_hangs_gives_no_sign_of_life_though_its_threads_and_children_live(
    told: Deployed, manager: Manager
) -> None:
    timeout = 2.0
    manager.wait_word("WATCHDOG=1")
    [child] = told.master.handle.children()
    told.master.handle.send(signal.SIGSTOP)
    try:
        wait_until(lambda: _state(told.master.pid) == "T", what="it is stopped")
        before = len(manager.listen())
        time.sleep(2 * timeout)
        assert manager.listen()[before:] == []
        assert _state(child) in "SRD"
    finally:
        told.master.handle.send(signal.SIGCONT)
    manager.wait_word("WATCHDOG=1", before)
    assert told.master.stop() == 0


def test_the_signal_of_the_watchdog_leaves_the_stacks_of_the_master_in_the_log(told: Deployed) -> None:
    told.master.handle.send(signal.SIGABRT)
    assert told.master.handle.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in told.master.handle.output()
    assert re.search(r'master.py", line \d+ in _supervise', told.master.handle.output())
    wait_until(lambda: told.master.handle.group() == [], what="the children have left")


def test_a_long_handler_within_the_grace_time_outlives_a_manager_of_less_patience(
    start: Start, service: Service, manager: Manager
) -> None:
    timeout = 2.0  # what TimeoutStopSec= would be
    master = start()
    manager.wait_word("STATUS=2/2 consuming")
    service.send("work", 1, do="sleep", seconds=8)
    service.wait_begun(1)
    begin = time.monotonic()
    master.terminate()
    while master.returncode is None:
        assert time.monotonic() < manager.patience_ends(timeout, begin), manager.words
        time.sleep(0.05)
    assert time.monotonic() > begin + 2 * timeout, "the handler was not at work any more, so this shows nothing"
    assert master.returncode == 0
    assert service.handled() == {1: 1}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
