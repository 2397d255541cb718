"""Sending on a real broker: what a return means, what each error means, and that the next event goes through."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from domain_events import (
    BrokerRefused,
    ConnectionFailed,
    DomainEvent,
    DomainEventError,
    EventTooLarge,
    PartlySent,
    Sender,
    SendError,
    SendTimeout,
    Unroutable,
    UnsendableData,
    send_domain_event,
    send_domain_events,
)
from tests.brokers import Broker, Queues
from tests.relay import relay
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def key(queues: Queues, unique: str) -> tuple[str, str]:
    """A routing key, and a queue that gets what is sent under it."""
    return unique + "key", queues.declare_watch(unique + "key")


@pytest.fixture
def private(broker: Broker, queues: Queues, unique: str) -> tuple[Sender, str]:
    """A sender to an exchange where nobody else listens, and the one queue there: it gets "heard"."""
    exchange = queues.forget_exchange_after(unique + "exchange")
    return Sender(broker.url, exchange), queues.declare_watch("heard", exchange=exchange)


def bodies(queues: Queues, queue: str) -> list[DomainEvent]:
    return [DomainEvent.from_json(body) for _, _, body in queues.drain(queue)]


def nobody_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"amqp://guest:guest@127.0.0.1:{closed.getsockname()[1]}/%2F"


def test_an_event_is_in_the_queue_when_send_returns(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    for n in range(20):
        sent = send_domain_event(key[0], {"n": n}, connection_settings=broker.url)
        message = queues.get(key[1])
        assert message is not None
        assert DomainEvent.from_json(message[2]) == sent


def test_send_returns_the_event_as_it_was_sent(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    sent = Sender(broker.url, app_id="shop").send(key[0], {"user_id": 1}, 7, "my-id", 1234567890.75)
    assert sent == DomainEvent(key[0], {"user_id": 1}, "7", "my-id", 1234567890.75)
    [(method, properties, body)] = queues.drain(key[1])
    assert method.routing_key == key[0]
    assert DomainEvent.from_json(body) == sent
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.timestamp) == (2, 1234567890)
    assert (properties.message_id, properties.type, properties.app_id) == ("my-id", key[0], "shop")


def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with pytest.raises(UnsendableData, match="data"):
        send_domain_events([(key[0], 1), (key[0], object())], connection_settings=broker.url)
    with pytest.raises(ValueError, match="wildcard"):
        send_domain_event("user.*", 1, connection_settings=broker.url)
    with pytest.raises(ValueError, match="timeout"):
        send_domain_event(key[0], 1, connection_settings=broker.url, timeout=0)
    with pytest.raises(TypeError, match="pair of routing key and data"):
        send_domain_events([(key[0], 1), 5], connection_settings=broker.url)  # type: ignore[list-item]
    assert queues.drain(key[1]) == []


def test_five_thousand_events_are_all_in_the_queue_in_their_order(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    sent = send_domain_events(((key[0], n) for n in range(5000)), connection_settings=broker.url, timeout=60)
    assert [event.data for event in sent] == list(range(5000))
    queues.wait_count(key[1], 5000)
    _, _, body = queues.get(key[1]) or pytest.fail("no event")
    assert DomainEvent.from_json(body) == sent[0]


def test_events_and_pairs_may_be_mixed_and_there_may_be_none(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    event = DomainEvent(key[0], 1)
    sent = send_domain_events([event, (key[0], 2)], connection_settings=broker.url)
    assert sent[0] is event
    assert bodies(queues, key[1]) == sent
    assert send_domain_events([], connection_settings=broker.url) == []


def test_sixteen_threads_send_over_one_connection(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    errors: list[BaseException] = []
    with relay(broker.url) as wire:
        sender = Sender(wire.url)

        def work(thread: int) -> None:
            try:
                for n in range(50):
                    sender.send(key[0], [thread, n])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        sender.close()
        assert len(wire.links) == 1
    assert errors == []
    got = [event.data for event in bodies(queues, key[1])]
    assert sorted(got) == [[thread, n] for thread in range(16) for n in range(50)]
    for thread in range(16):  # each thread's own events are in its order
        assert [n for sent_by, n in got if sent_by == thread] == list(range(50))


def test_all_senders_of_a_process_share_one_connection_and_close_ends_it(broker: Broker, key: tuple[str, str]) -> None:
    with relay(broker.url) as wire:
        for n in range(3):
            send_domain_event(key[0], n, connection_settings=wire.url)
        with Sender(wire.url) as sender:
            sender.send(key[0], 3)
        assert len(wire.links) == 1
        sender.send(key[0], 4)
        assert len(wire.links) == 2
        sender.close()
        sender.close()


# Events without a queue


def test_an_event_that_nobody_listens_to_is_no_error(broker: Broker, unique: str) -> None:
    assert Sender(broker.url).send(unique + "nobody", 1)


def test_a_mandatory_event_that_nobody_listens_to_is_unroutable(queues: Queues, private: tuple[Sender, str]) -> None:
    sender, queue = private
    with pytest.raises(Unroutable, match="nobody"):
        sender.send("nobody", 1, mandatory=True)
    sent = sender.send("heard", 2, mandatory=True)
    assert bodies(queues, queue) == [sent]


def test_partly_sent_names_the_events_that_are_not_confirmed(queues: Queues, private: tuple[Sender, str]) -> None:
    sender, queue = private
    events = [DomainEvent("heard" if n % 3 else "nobody", n) for n in range(30)]
    with pytest.raises(PartlySent, match="10 of 30") as partly:
        sender.send_many(events, mandatory=True)
    assert partly.value.unconfirmed == events[::3]
    assert [type(cause) for cause in partly.value.causes] == [Unroutable] * 10
    assert bodies(queues, queue) == [event for event in events if event.data % 3]


def test_twins_in_one_batch_are_told_apart_by_their_routing_key(private: tuple[Sender, str]) -> None:
    sender, _ = private
    twins = [DomainEvent("heard", 1, uuid_string="same"), DomainEvent("nobody", 1, uuid_string="same")]
    with pytest.raises(PartlySent) as partly:
        sender.send_many(twins, mandatory=True)
    assert partly.value.unconfirmed == [twins[1]]


# A broker that refuses


def test_a_wrong_password_is_refused_and_stays_secret(broker: Broker) -> None:
    url = broker.url.replace("guest:guest", "guest:hunter2")
    assert url != broker.url
    with pytest.raises(BrokerRefused, match="login of user 'guest'") as refused:
        send_domain_event("a.b", 1, connection_settings=url)
    assert "hunter2" not in str(refused.value)


def test_an_unknown_virtual_host_is_refused_by_name(broker: Broker) -> None:
    url = broker.url.rpartition("/")[0] + "/no-such-place"
    with pytest.raises(BrokerRefused, match="no-such-place"):
        send_domain_event("a.b", 1, connection_settings=url)


def test_an_exchange_of_another_type_is_an_error_that_names_it(
    broker: Broker, queues: Queues, key: tuple[str, str], unique: str
) -> None:
    exchange = queues.forget_exchange_after(unique + "fanout")
    queues.channel.exchange_declare(exchange, "fanout", durable=True)
    sender = Sender(broker.url, exchange)
    for _ in range(2):
        with pytest.raises(SendError, match=exchange):
            sender.send(key[0], 1)
    queues.channel.exchange_delete(exchange)
    sender.send(key[0], 1)


def test_an_exchange_that_is_deleted_under_a_sender_is_declared_again(
    broker: Broker, queues: Queues, unique: str
) -> None:
    exchange = queues.forget_exchange_after(unique + "exchange")
    sender = Sender(broker.url, exchange)
    for _ in range(3):
        sender.send("a.b", 1)
        queues.channel.exchange_delete(exchange)
        sent = sender.send_many([("a.b", n) for n in range(100)])
        assert len(sent) == 100


def test_an_app_id_that_the_wire_cannot_carry_is_refused_when_it_is_given() -> None:
    with pytest.raises(ValueError, match="app_id"):
        Sender(app_id="x" * 256)
    with pytest.raises(ValueError, match="app_id"):
        Sender(app_id="\ud800")


# A broker that is not there


def test_nobody_listening_is_an_error_within_the_timeout() -> None:
    url = nobody_listens()
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"not sent within 0\.5 s: .*127\.0\.0\.1"):
        send_domain_event("a.b", 1, connection_settings=url, timeout=0.5)
    assert time.monotonic() - began >= 0.5  # it went on trying


def test_a_broker_that_comes_within_the_timeout_gets_the_event(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
    result: list[DomainEvent] = []
    thread = threading.Thread(
        target=lambda: result.append(send_domain_event(key[0], 1, connection_settings=url, timeout=30))
    )
    thread.start()
    time.sleep(0.3)  # so that it fails at least once; the test holds without it, too
    with relay(broker.url, port):
        thread.join(30)
        assert bodies(queues, key[1]) == result
        assert len(result) == 1
        Sender(url).close()


def test_a_broker_that_accepts_and_says_nothing_is_an_error_within_the_timeout(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        wire.deaf = True
        sender = Sender(wire.url)
        with pytest.raises(ConnectionFailed, match=r"not sent within 0\.5 s"):
            sender.send(key[0], "never sent", timeout=0.5)
        wire.deaf = False
        wire.cut()
        sent = sender.send(key[0], "sent")
        assert bodies(queues, key[1]) == [sent]
        sender.close()


def test_a_dead_node_first_in_the_list_is_passed_over(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    urls = [nobody_listens(), nobody_listens(), broker.url]
    sent = send_domain_event(key[0], 1, connection_settings=urls)
    assert bodies(queues, key[1]) == [sent]


def test_events_that_were_given_up_are_not_sent_later(broker: Broker, queues: Queues, key: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    sender = Sender(f"amqp://guest:guest@127.0.0.1:{port}/%2F")
    with pytest.raises(PartlySent) as partly:
        sender.send_many([(key[0], n) for n in range(5000)], timeout=0.3)
    assert len(partly.value.unconfirmed) == 5000
    assert {type(cause) for cause in partly.value.causes} == {ConnectionFailed}
    with relay(broker.url, port):
        sent = sender.send(key[0], "later", timeout=30)
        assert bodies(queues, key[1]) == [sent]
        sender.close()


# A connection that is lost


def test_a_connection_that_was_lost_between_two_events_costs_nothing(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        sender = Sender(wire.url)
        sent = []
        for n in range(5):
            sent.append(sender.send(key[0], n))
            wire.cut()
        assert bodies(queues, key[1]) == sent
        sender.close()


def test_a_lost_confirm_leads_to_a_second_copy_with_the_same_id(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        sender = Sender(wire.url)
        sender.send(key[0], "first")
        queues.drain(key[1])
        wire.links[0].hold(down=True)
        result: list[DomainEvent] = []
        thread = threading.Thread(target=lambda: result.append(sender.send(key[0], "second", timeout=30)))
        thread.start()
        queues.wait_count(key[1], 1)
        wire.cut()
        thread.join(30)
        copies = bodies(queues, key[1])
        sender.close()
    assert copies == [result[0], result[0]]


def test_no_confirm_within_the_timeout_means_perhaps_sent_and_the_next_event_goes_through(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        sender = Sender(wire.url)
        sender.send(key[0], "first")
        queues.drain(key[1])
        wire.links[0].hold(down=True)
        with pytest.raises(SendTimeout, match=r"no confirm within 0\.5 s; the event may have arrived") as timeout:
            sender.send(key[0], "perhaps", timeout=0.5)
        assert isinstance(timeout.value, TimeoutError)
        # The silent connection is given up, so that the next one does not have to wait for it.
        sent = sender.send(key[0], "next", timeout=10)
        assert [event.data for event in bodies(queues, key[1])] == ["perhaps", "next"]
        assert sent.data == "next"
        assert len(wire.links) == 2
        sender.close()


def test_nothing_is_lost_when_the_connection_breaks_again_and_again(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        done = threading.Event()

        def saw() -> None:
            pause = 0.1
            while not done.wait(pause):
                wire.cut()
                pause *= 1.1  # on a slow machine, too, some time is long enough for a login

        thread = threading.Thread(target=saw)
        thread.start()
        sent: list[DomainEvent] = []
        try:
            sender = Sender(wire.url)
            for n in count():
                if n >= 15 and len(wire.links) > 1:
                    break
                sent += sender.send_many([(key[0], [n, m]) for m in range(100)], timeout=30)
        finally:
            done.set()
            thread.join()
        sender.close()
    got = {event.uuid_string for event in bodies(queues, key[1])}
    assert got == {event.uuid_string for event in sent}


# Offline


def test_offline_nothing_is_sent_and_that_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "domain_events"):
        event = send_domain_event("user.disabled", {"secret": 1}, connection_settings=None)
        many = send_domain_events([("a.b", 1), ("a.c", 2)], connection_settings=None)
    assert event.routing_key == "user.disabled"
    assert len(many) == 2
    assert [record.levelno for record in caplog.records] == [logging.DEBUG] * 3
    assert event.uuid_string in caplog.text
    assert "secret" not in caplog.text


def test_offline_refuses_what_would_be_refused_online() -> None:
    with pytest.raises(UnsendableData):
        send_domain_event("user.disabled", object(), connection_settings=None)


def test_the_environment_names_the_broker_and_the_one_for_producers_wins(
    broker: Broker, queues: Queues, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", broker.url)
    first = send_domain_event(key[0], 1)
    monkeypatch.setenv("DOMAIN_EVENT_BROKER", nobody_listens())
    monkeypatch.setenv("DOMAIN_EVENT_PRODUCER_BROKER", broker.url)
    second = send_domain_event(key[0], 2)
    assert bodies(queues, key[1]) == [first, second]


# Processes


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on os.fork() warns when there are threads; that ours survive it is what is tested.
        [sys.executable, "-W", "error::ResourceWarning", "-W", "ignore:::__main__", "-c", script, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


FORK = """
import os, sys
from domain_events import send_domain_event
url, key = sys.argv[1:]
def send(what):
    send_domain_event(key, what, connection_settings=url)
send("parent 1")
child = os.fork()
if not child:
    send("child 1")
    send("child 2")
    sys.exit(0)  # with everything that a Python program does at its end
_, status = os.waitpid(child, 0)
assert status == 0, status
send("parent 2")
"""


def test_after_a_fork_both_processes_send_and_the_parents_connection_outlives_the_child(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        done = run(FORK, wire.url, key[0])
        assert (done.returncode, done.stderr) == (0, "")
        assert len(wire.links) == 2  # one each: the parent did not have to connect again
    assert [event.data for event in bodies(queues, key[1])] == ["parent 1", "child 1", "child 2", "parent 2"]


FORK_UNDER_LOAD = """
import os, sys, threading
from domain_events import send_domain_event
url, key = sys.argv[1:]
def work(name, count):
    for n in range(count):
        send_domain_event(key, f"{name} {n}", connection_settings=url)
threads = [threading.Thread(target=work, args=(f"thread-{n}", 100)) for n in range(4)]
for thread in threads:
    thread.start()
children = []
for n in range(8):
    child = os.fork()
    if not child:
        work(f"child-{n}", 5)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
for thread in threads:
    thread.join()
"""


def test_a_fork_while_other_threads_are_sending_leaves_both_sides_whole(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    with relay(broker.url) as wire:
        done = run(FORK_UNDER_LOAD, wire.url, key[0])
        assert (done.returncode, done.stderr) == (0, "")
        assert len(wire.links) == 9
    got = sorted(event.data for event in bodies(queues, key[1]))
    expected = [f"thread-{t} {n}" for t in range(4) for n in range(100)]
    expected += [f"child-{c} {n}" for c in range(8) for n in range(5)]
    assert got == sorted(expected)


FORK_WHILE_CONNECTING = """
import os, sys, threading
from domain_events import send_domain_event
url, key = sys.argv[1:]
first = threading.Thread(target=send_domain_event, args=(key, "parent"), kwargs={"connection_settings": url})
first.start()
children = []
for n in range(20):  # some of them in every stage of the parent's first connection
    child = os.fork()
    if not child:
        send_domain_event(key, "child", connection_settings=url)
        os._exit(0)
    children.append(child)
first.join()
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_while_the_parent_connects_for_the_first_time_leaves_the_child_able_to_send(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    done = run(FORK_WHILE_CONNECTING, broker.url, key[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(event.data for event in bodies(queues, key[1])) == ["child"] * 20 + ["parent"]


AT_ONCE = """
import sys
from domain_events import send_domain_event
send_domain_event(sys.argv[2], "last words", connection_settings=sys.argv[1])
"""


def test_a_program_that_ends_right_after_sending_ends_quietly(
    broker: Broker, queues: Queues, key: tuple[str, str]
) -> None:
    done = run(AT_ONCE, broker.url, key[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [event.data for event in bodies(queues, key[1])] == ["last words"]


AWAY = """
import sys
from domain_events import SendError, send_domain_event
try:
    send_domain_event("a.b", 1, connection_settings=sys.argv[1], timeout=0.3)
except SendError as error:
    print(type(error).__name__)
"""


def test_a_program_that_could_not_send_ends_quietly_too(broker: Broker) -> None:
    done = run(AWAY, nobody_listens())
    assert (done.returncode, done.stdout, done.stderr) == (0, "ConnectionFailed\n", "")
    with relay(broker.url) as wire:
        wire.deaf = True
        done = run(AWAY, wire.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ConnectionFailed\n", "")


def test_senders_leave_no_descriptors_behind(broker: Broker, key: tuple[str, str]) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    sender = Sender(broker.url)
    sender.send(key[0], 1)
    sender.close()
    before = descriptors()
    for n in range(5):
        sender.send(key[0], n)
        sender.close()
    wait_until(lambda: descriptors() <= before, what="all descriptors closed")


def test_every_error_of_sending_is_a_domain_event_error() -> None:
    for error in (SendTimeout, Unroutable, BrokerRefused, EventTooLarge, ConnectionFailed, PartlySent):
        assert issubclass(error, SendError)
        assert issubclass(error, DomainEventError)
