"""A receiver that has failed is told of by the master, though it has no connection, and nothing of that is left."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from domain_events.alerts import DEAD_LETTERED, RECEIVER_FAILED, RECEIVER_RECOVERED
from tests import proc
from tests.acceptance.alerts import Alerts
from tests.acceptance.trouble import DEADLINE, Master
from tests.brokers import Broker, Queues
from tests.processes import Processes
from tests.relay import relay
from tests.waiting import wait_until

AT_ONCE = ("--alerts", "--backoff", "0.05:0.05")
"""A receiver has failed at its first crash."""


@pytest.fixture
def alerts(processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path) -> Alerts:
    return Alerts(processes, queues, broker.url, unique, tmp_path)


def family(master: Master) -> list[int]:
    """All children of the master, zombies too."""
    return [*proc.children(master.pid), *proc.zombies(master.pid)]


def end(master: Master) -> int:
    """The exit code; nothing of the tree is left."""
    master.handle.terminate()
    code = master.handle.wait(DEADLINE)
    assert master.handle.group() == []
    return code


def kinds(alerts: Alerts) -> list[str]:
    return [alert.routing_key for alert in alerts.seen]


def test_a_receiver_that_fails_and_recovers_is_told_of_by_two_events_and_nothing_is_left(alerts: Alerts) -> None:
    master = alerts.start_consuming(*AT_ONCE, "--stable-after", "0.5", work={}, alarm={"keys": ["domain-events.#"]})
    before = master.open_files()
    for turn in (1, 2):
        alerts.refuse_to_boot()
        [pid, *_] = [line["pid"] for line in master.lines("child_consuming", receiver=alerts.prefix + "work")][::-1]
        os.kill(pid, signal.SIGKILL)
        failed = alerts.wait(2 * turn - 1)[-1]
        assert failed.routing_key == RECEIVER_FAILED
        assert failed.data.pop("reason") in ("SIGKILL", "did not boot (exit 71)")
        assert failed.data.pop("restarts") >= turn
        assert failed.data == {
            "receiver": alerts.prefix + "work",
            "slot": alerts.prefix + "work#0",
            "state": "failed",
            "host": socket.gethostname(),
            "pid": master.pid,
        }
        alerts.refuse_to_boot(False)
        assert alerts.wait(2 * turn)[-1].routing_key == RECEIVER_RECOVERED
    wait_until(lambda: len(alerts.handled("alarm")) >= 4, DEADLINE, "all of them handled")
    assert [told["key"] for told in alerts.handled("alarm")] == kinds(alerts)
    wait_until(lambda: len(family(master)) == 2, DEADLINE, "two children, and no zombie")
    wait_until(lambda: master.open_files() == before, DEADLINE, f"{before} open files")
    assert master.lines("alert_failed") == []
    assert end(master) == 0
    assert master.messages("ended what handlers have left behind") == []


def test_without_being_asked_for_nothing_is_sent_about_a_receiver(alerts: Alerts) -> None:
    alerts.refuse_to_boot()
    master = alerts.start("--backoff", "0.05:0.05", work={})
    master.wait_lines("child_exit", 5)
    assert alerts.wait(0) == []
    end(master)
    assert alerts.wait(0) == []


def test_all_receivers_that_fail_at_once_are_told_of_by_few_processes(alerts: Alerts) -> None:
    alerts.refuse_to_boot()
    names = [f"r{n}" for n in range(6)]
    master = alerts.start(*AT_ONCE, **{name: {} for name in names})
    told = alerts.wait(len(names))
    assert {alert.data["receiver"] for alert in told} == {alerts.prefix + name for name in names}
    assert {alert.data["reason"] for alert in told} == {"did not boot (exit 71)"}
    master.wait_lines("child_exit", 3 * len(names))
    end(master)
    assert len(alerts.wait(0)) == len(names)


def test_a_receiver_of_alerts_that_dies_of_them_makes_no_loop(alerts: Alerts) -> None:
    """Each alert kills two of its consumers and is dead-lettered then; each death is a failure, and none is told of."""
    alerts.refuse_to_boot()
    master = alerts.start(*AT_ONCE, work={})
    alerts.wait(1)
    end(master)
    alerts.refuse_to_boot(False)
    alarm = {"keys": ["domain-events.#"], "does": "die"}
    master = alerts.start_consuming(*AT_ONCE, "--stable-after", "0.2", alarm=alarm, work={"does": "fail"})
    alerts.send("work", *range(3))
    told = alerts.wait(4)
    assert [alert.routing_key for alert in told[1:]] == [DEAD_LETTERED] * 3
    alerts.wait_dead("alarm", 3)  # the queue came after the first one
    assert len(alerts.handled("alarm")) == 6
    pid = [line["pid"] for line in master.lines("child_start", receiver=alerts.prefix + "alarm")][-1]
    master.wait_lines("child_consuming", pid=pid)
    assert master.stop(tracebacks=3) == 0
    assert len(alerts.wait(4)) == 4


def test_an_alert_that_cannot_be_sent_is_a_line_in_the_log(alerts: Alerts) -> None:
    alerts.refuse_to_boot()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        url = f"amqp://guest:secret-word@127.0.0.1:{port}/"
        master = alerts.start(*AT_ONCE, env={"DOMAIN_EVENT_PRODUCER_BROKER": url}, work={})
        [line] = master.wait_lines("alert_failed")
    assert line["receiver"] == alerts.prefix + "work"
    assert str(port) in line["message"]
    assert "secret-word" not in master.handle.output()
    end(master)


def test_an_alert_that_gets_no_answer_does_not_hold_up_the_end_and_does_not_outlive_it(alerts: Alerts) -> None:
    alerts.refuse_to_boot()
    with relay(alerts.url) as silent:
        silent.deaf = True
        master = alerts.start(*AT_ONCE, env={"DOMAIN_EVENT_PRODUCER_BROKER": silent.url}, work={})
        wait_until(lambda: silent.links, DEADLINE, "the process that sends has connected")
        # It would wait for ten seconds. `stop` sees to it that nothing of the tree is left.
        end(master)
        assert master.messages("ended what handlers have left behind") == []
    assert master.lines("drain_end")


def test_the_process_that_sends_ends_with_its_master_and_is_missed_when_it_is_killed(alerts: Alerts) -> None:
    alerts.refuse_to_boot()
    with relay(alerts.url) as silent:
        silent.deaf = True
        env = {"DOMAIN_EVENT_PRODUCER_BROKER": silent.url}
        master = alerts.start("--alerts", "--backoff", "600:600", env=env, work={})
        wait_until(lambda: silent.links, DEADLINE, "the process that sends has connected")
        [herald] = family(master)
        assert proc.title(herald).startswith("domain-events: alerts")
        os.kill(herald, signal.SIGKILL)
        [line] = master.wait_lines("alert_failed")
        assert line["reason"] == "the process that should send it was ended"
        wait_until(lambda: family(master) == [], DEADLINE, "it is reaped")
        master.stop(tracebacks=1)
        again = alerts.start("--alerts", "--backoff", "600:600", env=env, work={})
        wait_until(lambda: len(silent.links) > 1, DEADLINE, "another one has connected")
        again.handle.kill()
        wait_until(lambda: again.handle.group() == [], DEADLINE, "all have ended with the master")


def test_children_hold_nothing_of_the_process_that_sends(alerts: Alerts) -> None:
    """One that is forked meanwhile has no end of its pipe."""
    alerts.refuse_to_boot()
    with relay(alerts.url) as silent:
        silent.deaf = True
        env = {"DOMAIN_EVENT_PRODUCER_BROKER": silent.url}
        master = alerts.start(*AT_ONCE, env=env, work={})
        wait_until(lambda: silent.links, DEADLINE, "the process that sends has connected")
        [herald] = [pid for pid in family(master) if proc.title(pid).startswith("domain-events: alerts")]
        pipes = pipes_of(herald) & pipes_of(master.pid)
        alerts.refuse_to_boot(False)
        pid = master.wait_lines("child_consuming")[0]["pid"]
        lifeline = pipes_of(pid) & pipes
        assert len(pipes - lifeline) == 1
        assert lifeline
        end(master)


def pipes_of(pid: int) -> set[str]:
    return {name for name in proc.descriptors(pid).values() if name.startswith("pipe:")}
