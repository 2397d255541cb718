"""Alerts about dead letters: another receiver gets them, none leads to another one, and nothing waits for them."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from domain_events.alerts import DEAD_LETTERED, SUPPRESSED, has_id_of_alert
from tests.acceptance.alerts import Alerts
from tests.acceptance.deploying import Connected
from tests.acceptance.trouble import DEADLINE
from tests.brokers import Broker, Queues
from tests.processes import Processes
from tests.relay import relay
from tests.waiting import wait_until

PRIVATE = "4929-private"


@pytest.fixture
def alerts(processes: Processes, broker: Broker, queues: Queues, unique: str, tmp_path: Path) -> Alerts:
    return Alerts(processes, queues, broker.url, unique, tmp_path)


@pytest.fixture
def own_alerts(processes: Processes, own_broker: Broker, own_queues: Queues, unique: str, tmp_path: Path) -> Alerts:
    return Alerts(processes, own_queues, own_broker.url, unique, tmp_path)


def test_a_receiver_of_alerts_is_told_of_a_dead_letter_and_not_of_its_data(alerts: Alerts) -> None:
    master = alerts.start_consuming(
        "--alerts", work={"does": "fail", "max_retries": 0}, alarm={"keys": ["domain-events.dead-lettered"]}
    )
    began = time.time()
    [event] = alerts.send("work", {"card": PRIVATE})
    alerts.wait_dead("work", 1)
    wait_until(lambda: alerts.handled("alarm"), DEADLINE, "the alert handled")
    [alert] = alerts.wait(1)
    [told] = alerts.handled("alarm")
    assert master.stop(tracebacks=1) == 0
    assert (told["key"], told["id"], told["data"]) == (DEAD_LETTERED, alert.uuid_string, alert.data)
    assert has_id_of_alert(alert.uuid_string)
    assert alert.domain_object_id == alerts.prefix + "work"
    data = dict(alert.data)
    message = data.pop("error_message")
    assert message.startswith("no paper in tray 7")
    assert len(message) <= 200
    assert began <= data.pop("sent_at") < data.pop("dead_at") <= time.time()
    assert data.pop("pid") == master.lines("child_start", receiver=alerts.prefix + "work")[0]["pid"]
    assert data == {
        "receiver": alerts.prefix + "work",
        "id": event.uuid_string,
        "routing_key": event.routing_key,
        "reason": "the handler raised ValueError",
        "error_type": "ValueError",
        "retries": 0,
        "dropped": False,
        "host": socket.gethostname(),
    }
    assert PRIVATE not in alert.to_json()


def test_without_being_asked_for_nothing_is_sent(alerts: Alerts) -> None:
    master = alerts.start_consuming(work={"does": "fail"})
    alerts.send("work", *range(3))
    alerts.wait_dead("work", 3)
    assert master.stop(tracebacks=3) == 0  # alerts that were under way would have got through by now
    assert alerts.wait(0) == []


def test_alerts_can_be_asked_for_in_the_environment(alerts: Alerts) -> None:
    alerts.start_consuming(env={"DOMAIN_EVENTS_ALERTS": "1"}, work={"does": "fail"})
    alerts.send("work", 1)
    [alert] = alerts.wait(1)
    assert alert.data["error_type"] == "ValueError"


def test_after_a_reload_alerts_are_sent_as_before(alerts: Alerts, connected: Connected) -> None:
    alerts.listen()
    connected.clean("work")
    for version in ("1", "2"):
        connected.app.write(version, "receive('work')\n")
        if version == "1":
            connected.start("--alerts", children=1)
        else:
            assert connected.operate("reload", "--wait")[0] == 0
        connected.send("work.asked", int(version), fail=True)
        assert alerts.wait(int(version))[-1].data["error_message"] == "cannot be handled"


def test_what_is_dropped_and_what_is_no_event_leads_to_alerts_too(alerts: Alerts) -> None:
    alerts.start_consuming("--alerts", careless={"does": "fail", "dead_letter": False}, work={})
    [event] = alerts.send("careless", 1)
    [dropped] = alerts.wait(1)
    assert (dropped.data["id"], dropped.data["dropped"]) == (event.uuid_string, True)
    alerts.queues.publish(f"{alerts.prefix}work.asked", b"garbage\x1b[31m")
    malformed = alerts.wait(2)[1].data
    assert malformed["reason"].startswith("malformed: ")
    assert malformed["id"].startswith("sha256:")
    assert (malformed["routing_key"], malformed["dropped"]) == (f"{alerts.prefix}work.asked", False)
    assert (malformed["error_type"], malformed["error_message"], malformed["sent_at"]) == (None, None, None)
    alerts.queues.wait_count(f"{alerts.prefix}careless", 0)


def test_a_receiver_that_fails_on_everything_and_gets_everything_makes_no_loop(own_alerts: Alerts) -> None:
    """Also when it retries alerts, and when somebody puts its dead alerts back."""
    master = own_alerts.start_consuming(
        "--alerts",
        work={"does": "fail"},
        all={"keys": ["#"], "does": "fail", "max_retries": 1, "retry_on": []},
        alarm={"keys": ["domain-events.#"], "does": "fail"},
    )
    events = own_alerts.send("work", *range(3))
    # Of each event: one alert about `work`, one about `all`. `all` and `alarm` fail on all six of them, silently.
    own_alerts.wait_dead("all", len(events) + 6)
    own_alerts.wait_dead("alarm", 6)
    own_alerts.wait_dead("work", len(events))
    told = own_alerts.wait(6)
    assert sorted((alert.data["receiver"], alert.data["id"]) for alert in told) == sorted(
        (own_alerts.prefix + name, event.uuid_string) for name in ("work", "all") for event in events
    )
    for _, properties, body in own_alerts.queues.drain(f"{own_alerts.prefix}alarm:dead"):
        headers = properties.headers or {}
        assert headers["domain-events-routing-key"] == DEAD_LETTERED
        properties.headers = {}
        own_alerts.queues.publish(f"{own_alerts.prefix}alarm", body, exchange="", properties=properties)
    own_alerts.wait_dead("alarm", 6)
    assert master.stop(tracebacks=len(events) * 2 + 6 * 3) == 0
    assert len(own_alerts.wait(6)) == 6
    for name in ("work", "all", "alarm"):
        own_alerts.queues.wait_count(own_alerts.prefix + name, 0)


def test_a_burst_of_dead_letters_leads_to_few_alerts_and_to_their_number(alerts: Alerts) -> None:
    n = 300
    master = alerts.start_consuming("--alerts", work={"does": "fail", "threads": 3})
    began = time.monotonic()
    alerts.send("work", *range(n))
    alerts.wait_dead("work", n)
    # After ten seconds, without a stop; what comes after that is told of at the end of the drain.
    wait_until(lambda: SUPPRESSED in {alert.routing_key for alert in alerts.wait(0)}, DEADLINE, "how many there were")
    alerts.send("work", *range(n))
    alerts.wait_dead("work", 2 * n)
    assert master.stop(tracebacks=2 * n) == 0
    lasted = time.monotonic() - began
    told = [alert for alert in alerts.wait(12) if alert.routing_key == DEAD_LETTERED]
    counts = [alert.data["n"] for alert in alerts.seen if alert.routing_key == SUPPRESSED]
    assert 10 <= len(told) <= 11 + lasted
    assert len(told) + sum(counts) == 2 * n
    assert 2 <= len(counts) <= 2 + lasted / 10
    assert len(master.messages("more events were given up within")) == len(counts)


def test_an_event_that_kills_its_consumer_leads_to_an_alert_when_it_is_given_up(alerts: Alerts) -> None:
    alerts.start_consuming("--alerts", work={"does": "die"})
    [event] = alerts.send("work", 1)
    [told] = alerts.wait(1)
    assert (told.data["id"], told.data["reason"]) == (event.uuid_string, "consumer died 2x (exit 3)")
    assert (told.data["error_type"], told.data["error_message"]) == ("ConsumerDied", "exit 3")


def test_coroutines_that_fail_lead_to_alerts_too(alerts: Alerts) -> None:
    alerts.start_consuming("--alerts", work={"does": "fail", "concurrency": 5})
    events = alerts.send("work", *range(5))
    assert {alert.data["id"] for alert in alerts.wait(5)} == {event.uuid_string for event in events}


def test_an_alert_that_nobody_is_bound_for_is_a_line_in_the_log(own_alerts: Alerts) -> None:
    own_alerts.listen()
    own_alerts.queues.delete(own_alerts._watch)
    master = own_alerts.start_consuming("--alerts", work={"does": "fail"})
    own_alerts.send("work", 1)
    wait_until(lambda: master.messages("was not sent (1 so far)", "has no queue for"), DEADLINE, "the line")
    own_alerts.wait_dead("work", 1)
    assert master.stop(tracebacks=1) == 0


def test_events_are_settled_though_alerts_have_no_exchange(own_alerts: Alerts) -> None:
    """Another declaration of it refuses every alert. The receiver's own exchange is fine."""
    exchange = own_alerts.prefix + "x"
    channel = own_alerts.queues.channel
    channel.exchange_declare("domain-events", "fanout", durable=True)
    watch = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(watch, "domain-events")
    own_alerts._watch = watch
    master = own_alerts.start_consuming(
        "--alerts", env={"TEST_EXCHANGE": exchange}, work={"does": "fail", "at": "elsewhere"}
    )
    own_alerts.send("work", *range(20), exchange=exchange)
    own_alerts.wait_dead("work", 20)
    wait_until(lambda: master.messages("was not sent (10 so far)"), DEADLINE, "ten alerts that failed")
    assert master.stop(tracebacks=20) == 0
    own_alerts.queues.wait_count(own_alerts.prefix + "work", 0)
    own_alerts.queues.wait_count(own_alerts.prefix + "work:dead", 20)
    assert own_alerts.wait(0) == []


def test_an_exchange_that_was_deleted_is_made_again_for_the_alert(own_alerts: Alerts) -> None:
    exchange = own_alerts.prefix + "x"
    master = own_alerts.start_consuming(
        "--alerts", env={"TEST_EXCHANGE": exchange}, work={"does": "fail", "at": "elsewhere"}
    )
    own_alerts.send("work", 1, exchange=exchange)
    own_alerts.wait(1)
    own_alerts.queues.channel.exchange_delete("domain-events")
    own_alerts.send("work", 2, exchange=exchange)
    wait_until(
        lambda: master.messages("was not sent", "has no queue for"), DEADLINE, "an alert that nobody is bound for"
    )
    own_alerts.listen()
    own_alerts.send("work", 3, exchange=exchange)
    own_alerts.wait(2)
    own_alerts.wait_dead("work", 3)
    assert master.stop(tracebacks=3) == 0


def test_events_are_settled_and_the_end_comes_though_alerts_get_no_answer(alerts: Alerts) -> None:
    """They go where events are sent: DOMAIN_EVENT_PRODUCER_BROKER is a line on which nothing comes back."""
    with relay(alerts.url) as silent:
        silent.deaf = True
        master = alerts.start_consuming(
            "--alerts", env={"DOMAIN_EVENT_PRODUCER_BROKER": silent.url}, work={"does": "fail"}
        )
        alerts.send("work", *range(5))
        alerts.wait_dead("work", 5)
        wait_until(lambda: silent.links, DEADLINE, "a connection for alerts")
        assert master.stop(tracebacks=5) == 0
        assert len(master.messages("was not sent")) == 5
    alerts.queues.wait_count(f"{alerts.prefix}work", 0)
    alerts.queues.wait_count(f"{alerts.prefix}work:dead", 5)
    assert alerts.wait(0) == []


def test_a_broker_short_of_memory_holds_up_dead_letters_and_then_their_alerts(
    own_alerts: Alerts, own_broker: Broker
) -> None:
    master = own_alerts.start_consuming("--alerts", work={"does": "fail"})
    own_alerts.send("work", 0)
    own_alerts.wait(1)
    master.freeze(children=True)
    events = own_alerts.send("work", *range(1, 6))
    own_broker.ctl("set_vm_memory_high_watermark", "0.00001")
    master.thaw()
    wait_until(lambda: len(own_alerts.handled("work")) == 6, DEADLINE, "all handled")
    assert len(own_alerts.wait(1)) == 1
    own_alerts.queues.wait_count(own_alerts.prefix + "work:dead", 1)
    own_broker.ctl("set_vm_memory_high_watermark", "0.6")
    own_alerts.wait_dead("work", 6)
    told = own_alerts.wait(6)[1:]
    assert {alert.data["id"] for alert in told} == {event.uuid_string for event in events}
    assert master.stop(tracebacks=6) == 0


def test_a_kill_between_the_dead_letter_and_its_ack_leads_to_an_alert_for_each_dead_letter_at_most(
    alerts: Alerts,
) -> None:
    """The ack is held up on the way to the broker, and so are alerts."""
    with relay(alerts.url) as line, relay(alerts.url) as wire:
        line.deaf = True
        master = alerts.start_consuming(
            "--alerts", url=wire.url, env={"DOMAIN_EVENT_PRODUCER_BROKER": line.url}, work={"does": "fail"}
        )
        [consuming] = wire.links  # the one for copies opens at the first of them
        consuming.hold(up=True)
        [event] = alerts.send("work", 1)
        alerts.wait_dead("work", 1)
        [pid] = master.pids()
        os.kill(pid, signal.SIGKILL)
        consuming.cut()
        line.deaf = False
        master.wait_lines("child_consuming", 2)
        alerts.wait_dead("work", 2)  # it came again: the first one was never acked
        [told] = alerts.wait(1)
        assert told.data["id"] == event.uuid_string
        assert master.stop(tracebacks=2) == 0
    assert len(alerts.wait(1)) == 1
