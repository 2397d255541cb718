"""The unit in systemd/: what it says, and what the command that it starts tells systemd."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from domain_events.supervisor.arguments import GROUPS
from domain_events.supervisor.exits import MasterExit
from domain_events.supervisor.options import Options
from tests.acceptance.service import COMMAND, Service
from tests.processes import ROOT, Handle, Processes
from tests.waiting import wait_until

UNIT = ROOT / "systemd" / "domain-events-supervisor@.service"
PROGRAM = "/opt/domain-events/%i/bin/domain-events-supervisor"
NOBODY_THERE = "amqp://guest:very-secret@127.0.0.1:1/%2F"

Unit = Mapping[tuple[str, str], list[str]]


@pytest.fixture
def unit() -> Unit:
    """(section, key) -> its values, in order: a key may stand there more than once (systemd.syntax(7))."""
    found = defaultdict(list)
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            assert not line.endswith("\\"), "this reader takes each line for itself"
            key, equals, value = line.partition("=")
            assert equals, line
            found[section, key].append(value)
    return found


def seconds(unit: Unit, section: str, key: str) -> float:
    [value] = unit[section, key]
    return float(value)


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "bin/test installs it; apt-get install systemd"
    copy = tmp_path / UNIT.name
    # The program of a checkout: that of an instance is not there.
    copy.write_text(UNIT.read_text().replace(PROGRAM, str(COMMAND)))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60)
    told = done.stdout + done.stderr
    # It tells of the other units of this machine as well, and then fails because of them.
    assert "domain-events" not in told
    assert done.returncode == 0 or told, f"systemd-analyze ended with {done.returncode} and no word"


def test_the_unit_reads_what_the_documentation_promises(unit: Unit) -> None:
    assert unit["Service", "ExecStart"] == [PROGRAM], "the modules come from the environment file"
    assert unit["Service", "EnvironmentFile"] == ["/etc/domain-events/%i.env"]
    assert unit["Service", "LoadCredential"] == ["broker:/etc/domain-events/%i.broker"]
    assert unit["Service", "SetCredential"] == [r"broker:\n"], "without it, a missing file fails the start"


def test_only_the_supervisor_is_told_to_stop_and_only_it_speaks_for_the_service(unit: Unit) -> None:
    assert unit["Service", "Type"] == ["notify"]
    assert unit["Service", "NotifyAccess"] == ["main"]
    assert unit["Service", "KillMode"] == ["mixed"]


def test_systemd_gives_a_stop_more_time_than_the_supervisor_takes(unit: Unit) -> None:
    ending = 3.0  # at most, after the last SIGKILL: for the children to vanish, and for their last log lines
    margin = 5.0
    longest = Options().grace + Options().kill_after + ending
    assert seconds(unit, "Service", "TimeoutStopSec") >= longest + margin


def test_systemd_gives_a_start_more_time_than_a_child_has_to_boot(unit: Unit) -> None:
    importing = 30.0
    longest = Options().boot_timeout + Options().kill_after
    assert seconds(unit, "Service", "TimeoutStartSec") >= longest + importing


def test_what_a_restart_cannot_help_is_not_restarted(unit: Unit) -> None:
    assert unit["Service", "Restart"] == ["on-failure"]
    [codes] = unit["Service", "RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {MasterExit.USAGE, MasterExit.CONFIGURATION}


def test_failing_at_once_ends_but_giving_up_now_and_then_is_restarted_for_ever(unit: Unit) -> None:
    burst = seconds(unit, "Unit", "StartLimitBurst")
    interval = seconds(unit, "Unit", "StartLimitIntervalSec")
    pause = seconds(unit, "Service", "RestartSec")
    assert burst * pause < interval
    assert burst * (pause + Options().give_up_after) > interval


def test_the_variables_on_the_page_about_deploying_exist() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    named = set(re.findall(r"DOMAIN_EVENTS_[A-Z_]+", page))
    known = {flag.variable for flags in GROUPS.values() for flag in flags if flag.twin} | {"DOMAIN_EVENTS_MODULES"}
    assert named
    assert named <= known


class Manager:
    """systemd's side of sd_notify(3): notes what was said, and by which process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.heard: list[str] = []
        self.speakers: set[int] = set()

    def listen(self) -> list[str]:
        """All that has been said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text, ancillary, _, _ = self._listener.recvmsg(65536, socket.CMSG_SPACE(struct.calcsize("3i")))
                self.heard.append(text.decode())
                [(_, _, credentials)] = ancillary
                self.speakers.add(struct.unpack("3i", credentials)[0])
        return self.heard

    def wait(self, condition: Callable[[str], bool], what: str) -> str:
        """The first word for which it holds, from now on or from before."""
        try:
            return wait_until(lambda: next(filter(condition, self.listen()), ""), 30.0, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\nheard: {self.heard}") from None

    def wait_word(self, text: str) -> None:
        self.wait(lambda word: word == text, text)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.setblocking(False)
        listener.bind(str(tmp_path / "notify"))
        yield Manager(listener)


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
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
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
    service.send("work", 1, do="sleep", seconds=3)
    service.wait_begun(1)
    before = len(manager.listen())
    master.terminate()
    manager.wait_word("STOPPING=1")
    manager.wait(lambda word: word.startswith("STATUS=stopping, 1 child"), "who is left")
    assert not service.handled(), "the handler was not at work any more, so this shows nothing"
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
