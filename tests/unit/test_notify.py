"""What a service manager is told, word by word."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import setproctitle

from domain_events.supervisor.display import EXTEND_EVERY, Display, Draining, Reloading
from domain_events.supervisor.hanging import SILENCE, Limits, works_on
from domain_events.supervisor.notes import InHand
from domain_events.supervisor.notify import Notifier
from domain_events.supervisor.slots import Slot, State
from tests.service_manager import Manager

PID = 4711
NO_RELOAD = Reloading(number=0, progress="")
STARTING = Slot(receiver="printer", index=0, state=State.STARTING)
CONSUMING = replace(STARTING, state=State.CONSUMING, booted=True, booted_once=True)
DRAINING = replace(CONSUMING, state=State.DRAINING)


def notifier(manager: Manager, **env: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.path, **env}, PID)


# The words


def test_without_a_service_manager_nothing_is_said_and_nothing_fails() -> None:
    for address in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        silent = Notifier({"WATCHDOG_USEC": "1000000", **address}, PID)
        silent.ready()
        silent.status("all is well")
        assert silent.flush()
        assert silent.watchdog is None
        silent.close()


def test_a_status_is_told_when_it_is_news(manager: Manager) -> None:
    told = notifier(manager)
    for text in ("1/2 consuming", "1/2 consuming", "2/2 consuming"):
        told.status(text)
    assert manager.listen() == ["STATUS=1/2 consuming", "STATUS=2/2 consuming"]


def test_a_status_is_one_line_of_utf_8_whatever_a_broker_has_answered(manager: Manager) -> None:
    notifier(manager).status("refused:\nMAINPID=1\r\0READY=1 \x9b \u202e \udc80 é")
    assert manager.listen() == [r"STATUS=refused: MAINPID=1 \x00READY=1 \x9b \u202e \udc80 é"]


def test_a_reload_carries_the_time_at_which_it_began(manager: Manager) -> None:
    notifier(manager).reloading(123456789)
    assert manager.listen() == ["RELOADING=1\nMONOTONIC_USEC=123456789"]


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    name = f"domain-events-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, PID).ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_wants_a_word_twice_in_its_time(
    manager: Manager, env: dict[str, str], seconds: float | None
) -> None:
    assert notifier(manager, **env).watchdog == seconds


def test_a_manager_that_is_busy_is_not_waited_for_and_hears_the_last_word_of_each_kind_later(manager: Manager) -> None:
    told = notifier(manager)
    fill = 0
    while told.flush():
        told.status(f"line {fill}")
        fill += 1
    told.reloading(1)
    told.ready()
    told.reloading(2)
    told.alive()
    told.status("the last")
    assert not told.flush()
    before = len(manager.listen())
    assert told.flush()
    assert manager.listen()[before:] == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=2",
        "WATCHDOG=1",
        "STATUS=the last",
    ]


def test_a_manager_that_is_gone_is_complained_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    told = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "60000000"}, PID)
    for _ in range(3):
        told.alive()
    assert told.flush()
    [record] = caplog.records
    assert "the service manager was not told WATCHDOG" in record.getMessage()


# When they are said: by a loop that shows its slots in each turn


class Loop:
    """Shows; `now` is its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, manager: Manager, **env: str) -> None:
        for name, value in {"NOTIFY_SOCKET": manager.path, **env}.items():
            monkeypatch.setenv(name, value)
        self._manager = manager
        self.now = 1000.0
        self.display = Display("tests", "booted", self.now)

    def turn(
        self,
        *slots: Slot,
        reloading: Reloading = NO_RELOAD,
        deadline: float | None = None,
        moves: Callable[[], bool] = lambda: True,
    ) -> list[str]:
        """What is said in it, without the status."""
        before = len(self._manager.listen())
        draining = None if deadline is None else Draining(deadline=deadline, moves=moves)
        self.display.show(slots, self.now, reloading=reloading, draining=draining)
        return [word.partition("\n")[0] for word in self.heard()[before:] if not word.startswith("STATUS=")]

    def heard(self) -> Sequence[str]:
        return self._manager.listen()


@pytest.fixture(autouse=True)
def titles() -> Iterator[None]:
    """The process that runs the tests gets its title back."""
    title, name = setproctitle.getproctitle(), setproctitle.getthreadtitle()
    yield
    setproctitle.setproctitle(title)
    setproctitle.setthreadtitle(name)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, manager: Manager) -> Loop:
    return Loop(monkeypatch, manager)


def test_ready_is_said_once(loop: Loop) -> None:
    assert loop.turn(STARTING) == []
    assert loop.turn(CONSUMING) == ["READY=1"]
    assert loop.turn(STARTING) == []
    assert loop.turn(CONSUMING) == []


def test_a_reload_ends_with_ready_and_the_status_tells_of_it(loop: Loop) -> None:
    loop.turn(CONSUMING)
    importing = Reloading(number=1, progress="the new code is imported")
    assert loop.turn(CONSUMING, reloading=importing)[0] == "RELOADING=1"
    assert loop.heard()[-2:][0].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert "STATUS=reloading: the new code is imported; 1/1 consuming" in loop.heard()
    assert loop.turn(CONSUMING, reloading=Reloading(number=1, progress="0/1 taken over")) == []
    assert loop.heard()[-1] == "STATUS=reloading: 0/1 taken over; 1/1 consuming"
    assert loop.turn(CONSUMING, reloading=Reloading(number=1, progress="")) == ["READY=1"]
    assert "STATUS=1/1 consuming" in loop.heard()[-2:]


def test_a_reload_that_fails_within_one_turn_is_told_with_both_words(loop: Loop) -> None:
    loop.turn(CONSUMING)
    assert loop.turn(CONSUMING, reloading=Reloading(number=1, progress="")) == ["RELOADING=1", "READY=1"]


def test_a_reload_right_after_another_one_is_told_anew(loop: Loop) -> None:
    loop.turn(CONSUMING)
    loop.turn(CONSUMING, reloading=Reloading(number=1, progress="x"))
    assert loop.turn(CONSUMING, reloading=Reloading(number=2, progress="x")) == ["RELOADING=1"]
    assert loop.turn(CONSUMING, reloading=Reloading(number=2, progress="")) == ["READY=1"]


def test_a_reload_before_the_start_is_over_is_a_part_of_the_start(loop: Loop) -> None:
    assert "RELOADING=1" not in loop.turn(STARTING, reloading=Reloading(number=1, progress="x"))
    assert loop.turn(CONSUMING, reloading=Reloading(number=1, progress="")) == ["READY=1"]


def test_a_loop_that_does_not_come_round_gives_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, manager: Manager
) -> None:
    loop = Loop(monkeypatch, manager, WATCHDOG_USEC="8000000")
    assert "WATCHDOG=1" in loop.turn(CONSUMING)
    assert loop.display.due == 1004.0
    loop.now = 1003.9
    assert loop.turn(CONSUMING) == []
    loop.now = 1004.0
    assert loop.turn(CONSUMING) == ["WATCHDOG=1"]
    loop.now = 1100.0  # it has hung
    assert loop.turn(CONSUMING) == ["WATCHDOG=1"]


def test_while_a_drain_moves_it_gets_more_time_again_and_again_but_not_beyond_its_deadline(loop: Loop) -> None:
    loop.turn(CONSUMING)
    loop.display.stopping()
    deadline = loop.now + 60.0
    asked = []
    while loop.now < deadline:
        words = loop.turn(DRAINING, deadline=deadline)
        asked += [(loop.now, loop.now + int(word.partition("=")[2]) / 1e6) for word in words if "EXTEND" in word]
        due = loop.display.due
        assert due is not None
        loop.now = due
    times = [at for at, _ in asked]
    assert times == [1000.0 + n * EXTEND_EVERY for n in range(12)]
    assert all(until >= at + 2 * EXTEND_EVERY or until >= deadline for at, until in asked)
    assert deadline < max(until for _, until in asked) < deadline + EXTEND_EVERY


def test_a_drain_in_which_nothing_moves_gets_no_more_time(loop: Loop) -> None:
    loop.turn(CONSUMING)
    loop.display.stopping()
    assert loop.turn(DRAINING, deadline=2000.0, moves=lambda: False) == []
    loop.now += EXTEND_EVERY
    [word] = loop.turn(DRAINING, deadline=2000.0)
    assert word.startswith("EXTEND_TIMEOUT_USEC="), "it moves again"


def test_a_reload_gets_as_much_time_as_it_takes(loop: Loop) -> None:
    loop.turn(CONSUMING)
    for number in range(3):
        words = loop.turn(CONSUMING, reloading=Reloading(number=1, progress="x"))
        assert "EXTEND_TIMEOUT_USEC=15000000" in words, number
        loop.now += EXTEND_EVERY
    loop.turn(CONSUMING, reloading=Reloading(number=1, progress=""))
    assert loop.display.due is None


# What moves


def moves(
    *in_hand: InHand, last_beat: float | None, now: float, timeout: float | None = None, not_before: float = 0.0
) -> bool:
    limits = Limits(timeout=timeout, hang_timeout=None)
    return works_on(limits, in_hand=in_hand, last_beat=last_beat, not_before=not_before, now=now)


def test_one_long_handler_is_worth_waiting_for_while_its_child_shows_that_it_lives() -> None:
    event = InHand(id="a", since=100.0)
    assert moves(event, last_beat=1998.0, now=2000.0)
    assert not moves(event, last_beat=2000.0 - SILENCE, now=2000.0)


def test_a_child_that_has_never_given_a_sign_of_life_is_not_waited_for() -> None:
    assert not moves(last_beat=None, now=2000.0)


def test_a_handler_that_takes_longer_than_its_receiver_allows_is_not_waited_for() -> None:
    event = InHand(id="a", since=100.0)
    assert moves(event, last_beat=109.0, now=109.0, timeout=10.0)
    assert not moves(event, last_beat=110.0, now=110.0, timeout=10.0)


def test_clocks_do_not_count_while_the_master_was_stopped_itself() -> None:
    assert moves(InHand(id="a", since=100.0), last_beat=105.0, now=1001.0, timeout=10.0, not_before=1000.0)
