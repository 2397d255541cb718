"""What goes wrong between a sender and the broker: each fault has its error, in time, and then it works again.

docs/sending.md has the table of them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

import domain_events
from domain_events import (
    AccessRefused,
    BrokerBlocked,
    BrokerRefused,
    ConnectionFailed,
    DomainEvent,
    EventNacked,
    EventTooLarge,
    ExchangeMismatch,
    ExchangeMissing,
    LoginRefused,
    PartlySent,
    Sender,
    SendError,
    SendTimeout,
    TLSFailed,
    TopologyMismatch,
    Unroutable,
    VirtualHostRefused,
    send_domain_event,
)
from tests.brokers import Broker, Queues, private_broker
from tests.documents import table
from tests.relay import Relay, relay
from tests.waiting import wait_until

pytestmark = pytest.mark.owns_broker

T = TypeVar("T")
PASSWORD = "hunter2%2F"
BOUND = 30.0
"""Seconds that a send may take longer than its timeout, on a machine that is very busy. What hangs takes for ever."""

# In one call: each one of rabbitmqctl takes a second. set_permissions ends with: configure, write, read.
USERS = """
ok = rabbit_vhost:add(<<"short-lived">>, <<"test">>),
[ok = rabbit_auth_backend_internal:add_user(User, Password, <<"test">>) || {User, Password} <- [
    {<<"anyone">>, <<"hunter2/">>},
    {<<"writer">>, <<"hunter2/">>},
    {<<"reader">>, <<"hunter2/">>},
    {<<"partial">>, <<"hunter2/">>},
    {<<"changing">>, <<"another">>},
    {<<"limited">>, <<"hunter2/">>},
    {<<"nobody">>, <<"hunter2/">>}
]],
[ok = rabbit_auth_backend_internal:set_permissions(User, VHost, Configure, Write, <<".*">>, <<"test">>)
 || {User, VHost, Configure, Write} <- [
    {<<"anyone">>, <<"/">>, <<".*">>, <<".*">>},
    {<<"anyone">>, <<"short-lived">>, <<".*">>, <<".*">>},
    {<<"writer">>, <<"/">>, <<"^$">>, <<".*">>},
    {<<"reader">>, <<"/">>, <<".*">>, <<"^$">>},
    {<<"partial">>, <<"/">>, <<".*">>, <<".*">>},
    {<<"changing">>, <<"/">>, <<".*">>, <<".*">>},
    {<<"limited">>, <<"/">>, <<".*">>, <<".*">>}
]],
ok = rabbit_auth_backend_internal:set_user_limits(<<"limited">>, #{<<"max-connections">> => 0}, <<"test">>).
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Broker]:
    """A broker for this module, with users whose password is `hunter2/`."""
    with private_broker(tls=True) as started:
        started.ctl("eval", USERS)
        yield started


@pytest.fixture
def looked(node: Broker, unique: str) -> Iterator[Queues]:
    queues = Queues(node.url, unique)
    yield queues
    queues.close()


def login(node: Broker, user: str, password: str = PASSWORD) -> str:
    return node.url.replace("guest:guest", f"{user}:{password}")


def within(timeout: float, call: Callable[[], T]) -> T:
    """What the call returns or raises, if it does so in time."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout + BOUND)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
    return answers[0]


def fails(sender: Sender, kind: type[SendError], words: str, *, timeout: float = 30.0, key: str = "a.b") -> SendError:
    """Sends, and returns the error, of exactly this kind and with these words; the password is nowhere in it."""
    with pytest.raises(SendError) as raised:
        within(timeout, lambda: sender.send(key, 1, timeout=timeout))
    error = raised.value
    assert type(error) is kind, repr(error)
    assert words in str(error)
    told = "".join(traceback.format_exception(error, chain=True)) + repr(error) + repr(sender)
    assert "hunter2" not in told
    return error


def bodies(queues: Queues, queue: str) -> list[DomainEvent]:
    return [DomainEvent.from_json(body) for _, _, body in queues.drain(queue)]


def test_the_table_of_errors_has_all_errors_of_sending_and_each_of_them_is_tested_here() -> None:
    rows = {row[0].strip("`") for row in table("docs/sending.md", "exception")}
    errors = {
        name
        for name in domain_events.__all__
        if isinstance(value := getattr(domain_events, name), type) and issubclass(value, SendError)
    }
    assert rows == errors | {"InvalidName", "UnsendableData", "ConfigurationError"}
    assert errors < set(globals())  # and the linter knows that what is imported here is used


# No broker


@contextlib.contextmanager
def outage(node: Broker) -> Iterator[tuple[str, Callable[[], contextlib.AbstractContextManager[Relay]]]]:
    """A URL where nobody listens, and what makes the broker listen there."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    yield node.url.replace(str(urlsplit(node.url).port), str(port)), lambda: relay(node.url, port)


def test_a_broker_that_is_down_is_a_failed_connection(node: Broker, looked: Queues, unique: str) -> None:
    queue = looked.declare_watch(unique + "key")
    with outage(node) as (url, repair):
        sender = Sender(url)
        error = fails(sender, ConnectionFailed, "not sent within 0.5 s", timeout=0.5)
        assert isinstance(error, ConnectionError)
        with repair():
            sent = sender.send(unique + "key", 1)
            sender.close()
    assert bodies(looked, queue) == [sent]


def test_a_broker_that_accepts_and_says_nothing_is_a_failed_connection(node: Broker) -> None:
    with relay(node.url) as wire:
        wire.deaf = True
        sender = Sender(wire.url)
        fails(sender, ConnectionFailed, "not sent within 0.5 s", timeout=0.5)
        wire.deaf = False
        wire.cut()
        sender.send("a.b", 1)
        sender.close()


def test_a_name_that_does_not_resolve_is_a_failed_connection() -> None:
    sender = Sender("amqp://guest:hunter2@no-such-host.invalid")
    fails(sender, ConnectionFailed, "no-such-host.invalid", timeout=3.0)


def test_what_is_no_broker_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        threading.Thread(target=answer_like_a_web_server, args=(web,), daemon=True).start()
        sender = Sender(f"amqp://guest:hunter2@127.0.0.1:{web.getsockname()[1]}")
        fails(sender, ConnectionFailed, "not sent within 1 s", timeout=1.0)


def answer_like_a_web_server(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            client.close()


def test_a_connection_lost_between_publish_and_confirm_while_the_broker_stays_away_is_perhaps_sent(
    node: Broker, looked: Queues, unique: str
) -> None:
    queue = looked.declare_watch(unique + "key")
    with outage(node) as (url, repair):
        sender = Sender(url)
        with repair() as wire:
            sender.send(unique + "key", "first")
            looked.drain(queue)
            wire.links[0].hold(down=True)
            with pytest.raises(SendTimeout, match="the event may have arrived") as raised:
                failing = threading.Thread(target=lambda: (looked.wait_count(queue, 1), wire.close()))
                failing.start()
                sender.send(unique + "key", "perhaps", timeout=1.5)
            failing.join()
        assert type(raised.value) is SendTimeout
        with repair():
            sender.send(unique + "key", "last", timeout=10)
            sender.close()
    assert [event.data for event in bodies(looked, queue)] == ["perhaps", "last"]


# A broker that takes nothing at the moment


def test_a_broker_short_of_memory_blocks_and_what_waits_goes_out_when_it_is_over(node: Broker, unique: str) -> None:
    queues = Queues(node.url, unique)
    queue = queues.declare_watch(unique + "key", durable=True)
    queues.abandon()  # a watcher that publishes would be blocked with the others
    sender = Sender(node.url)
    sender.send(unique + "key", "first")
    node.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        # A broker says that it is blocked when it is given something, which is on its way then.
        with pytest.raises(SendTimeout, match=r"may have arrived \(the broker takes no events at the moment"):
            sender.send(unique + "key", "perhaps", timeout=4)
        fails(sender, BrokerBlocked, "the broker takes no events at the moment", timeout=0.5, key=unique + "key")
        waiting: list[DomainEvent] = []
        thread = threading.Thread(
            target=lambda: waiting.append(sender.send(unique + "key", "waited", timeout=30)), daemon=True
        )
        thread.start()
    finally:
        node.ctl("set_vm_memory_high_watermark", "0.6")
    thread.join(30)
    last = sender.send(unique + "key", "last")
    got = bodies(queues, queue)
    assert [event.data for event in got] == ["first", "perhaps", "waited", "last"]
    assert got[2:] == [*waiting, last]
    queues.close()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_full_queue_is_a_nack_and_the_other_queues_have_the_event(
    node: Broker, looked: Queues, unique: str, kind: str
) -> None:
    other = looked.declare_watch(unique + "key")
    full = looked.forget_after(unique + "full")
    arguments = {"x-queue-type": kind, "x-max-length": 1, "x-overflow": "reject-publish"}
    looked.channel.queue_declare(full, durable=True, arguments=arguments)
    looked.channel.queue_bind(full, "domain-events", unique + "key")
    sender = Sender(node.url)
    with contextlib.suppress(PartlySent):
        sender.send_many([(unique + "key", "fill")] * 20, timeout=0.5)  # a quorum queue is full a little later
    with pytest.raises(PartlySent) as partly:
        within(10, lambda: sender.send_many([(unique + "key", n) for n in range(50)], timeout=10))
    assert {type(cause) for cause in partly.value.causes} == {EventNacked}
    assert "a queue is full" in str(partly.value)
    assert {event.data for event in bodies(looked, other)} == {"fill", *range(50)}
    looked.channel.queue_purge(full)
    wait_until(lambda: is_sent(sender, EventNacked, unique + "key"), what="room in the queue")


def is_sent(sender: Sender, error: type[SendError], key: str = "a.b") -> bool:
    try:
        sender.send(key, "again")
    except error:
        return False
    return True


def test_an_event_for_nobody_is_unroutable_when_it_is_mandatory(node: Broker, unique: str) -> None:
    sender = Sender(node.url)
    with pytest.raises(Unroutable, match=unique + "nobody"):
        within(30, lambda: sender.send(unique + "nobody", 1, mandatory=True, timeout=30))
    sender.send(unique + "nobody", 1)


# A channel that the broker closes


def test_channels_that_the_broker_ends_cost_nothing(node: Broker, looked: Queues, unique: str) -> None:
    queue = looked.declare_watch(unique + "key", durable=True)
    looked.abandon()
    sender = Sender(node.url)
    sent = [sender.send(unique + "key", 1)]
    node.ctl("eval", "[exit(Pid, kill) || Pid <- rabbit_channel:list_local()].")
    sent.append(sender.send(unique + "key", 2))
    assert bodies(looked, queue) == sent


def test_a_connection_that_the_broker_closed_costs_nothing(node: Broker, looked: Queues, unique: str) -> None:
    queue = looked.declare_watch(unique + "key", durable=True)
    looked.abandon()
    sender = Sender(node.url)
    sent = [sender.send(unique + "key", 1)]
    node.ctl("close_all_connections", "for a test")
    sent.append(sender.send(unique + "key", 2))
    assert bodies(looked, queue) == sent


def test_an_event_that_is_too_large_is_named_and_the_others_are_sent(node: Broker, looked: Queues, unique: str) -> None:
    key = unique + "key"
    queue = looked.declare_watch(key)
    # Where 3.10 reads it; and where 4.x does.
    limit = "application:set_env(rabbit, max_message_size, {0}), persistent_term:put(max_message_size, {0})."
    node.ctl("eval", limit.format(100_000))
    try:
        sender = Sender(node.url)
        sender.close()  # a channel has the limit that was when it was opened
        with pytest.raises(EventTooLarge, match=r"the event has 2001\d\d bytes") as too_large:
            within(30, lambda: sender.send(key, "x" * 200_000, timeout=30))
        assert isinstance(too_large.value, ValueError)
        events = [DomainEvent(key, [n, "x" * (200_000 if n in (3, 7) else 10)]) for n in range(10)]
        with pytest.raises(PartlySent) as partly:
            sender.send_many(events)
        assert partly.value.unconfirmed == [events[3], events[7]]
        assert [type(cause) for cause in partly.value.causes] == [EventTooLarge] * 2
        last = sender.send(key, "last")
    finally:
        node.ctl("eval", limit.format(16_777_216))
    # What was sent together with the large ones may have been sent twice.
    assert {event.uuid_string for event in bodies(looked, queue)} == {
        event.uuid_string for event in [*events, last] if event not in (events[3], events[7])
    }


# An exchange that is not as it should be


def test_an_exchange_of_another_type_is_a_mismatch_that_names_both(node: Broker, looked: Queues, unique: str) -> None:
    exchange = looked.forget_exchange_after(unique + "exchange")
    looked.channel.exchange_declare(exchange, "fanout", durable=True)
    sender = Sender(login(node, "anyone"), exchange)
    for _ in range(2):
        error = fails(sender, ExchangeMismatch, f"exchange '{exchange}' exists with another 'type'")
        assert isinstance(error, BrokerRefused)
        assert isinstance(error, TopologyMismatch)
        assert (error.wanted, error.there) == ("topic", "fanout")
    looked.channel.exchange_delete(exchange)
    sender.send("a.b", 1)


def test_a_missing_exchange_that_the_user_may_not_declare_is_named(node: Broker, looked: Queues, unique: str) -> None:
    exchange = looked.forget_exchange_after(unique + "exchange")
    sender = Sender(login(node, "writer"), exchange)
    for _ in range(2):
        fails(sender, ExchangeMissing, f"no exchange '{exchange}'")
    looked.channel.exchange_declare(exchange, "topic", durable=True)
    sender.send("a.b", 1)  # one that is there it may use
    looked.channel.exchange_delete(exchange)
    error = fails(sender, ExchangeMissing, f"no exchange '{exchange}'")
    assert "may have arrived" not in str(error)
    looked.channel.exchange_declare(exchange, "topic", durable=True)
    sender.send("a.b", 1)


# Somebody who may not


def test_a_user_who_may_not_write_is_refused(node: Broker, looked: Queues, unique: str) -> None:
    exchange = looked.forget_exchange_after(unique + "exchange")
    sender = Sender(login(node, "reader"), exchange)
    for _ in range(2):
        fails(sender, AccessRefused, f"access to exchange '{exchange}'")
    # Of many events none is tried after the first refusals.
    with pytest.raises(PartlySent) as partly:
        within(10, lambda: sender.send_many([("a.b", n) for n in range(3000)], timeout=10))
    assert {type(cause) for cause in partly.value.causes} == {AccessRefused}
    assert len(partly.value.unconfirmed) == 3000
    node.ctl("set_permissions", "reader", ".*", ".*", ".*")
    wait_until(lambda: is_sent(sender, AccessRefused), what="the permission")  # a channel remembers for a moment


def test_a_user_who_may_write_some_keys_only_is_refused_those(node: Broker, looked: Queues) -> None:
    exchange = looked.forget_exchange_after("partial")
    queue = looked.declare_watch("#", exchange=exchange)
    node.ctl("set_topic_permissions", "partial", exchange, "^allowed", ".*")
    sender = Sender(login(node, "partial"), exchange)
    fails(sender, AccessRefused, "access to topic 'a.b'")
    events = [DomainEvent("refused" if n in (3, 4, 20) else "allowed", n) for n in range(30)]
    with pytest.raises(PartlySent) as partly:
        within(10, lambda: sender.send_many(events, timeout=10))
    assert partly.value.unconfirmed == [events[3], events[4], events[20]]
    assert {type(cause) for cause in partly.value.causes} == {AccessRefused}
    got = {event.uuid_string for event in bodies(looked, queue)}
    assert got == {event.uuid_string for event in events if event.routing_key == "allowed"}


@pytest.mark.parametrize("user", ["anyone", "no-such-user"])
def test_a_wrong_password_or_user_is_a_refused_login(node: Broker, user: str) -> None:
    sender = Sender(login(node, user, "hunter2-of-old"))
    fails(sender, LoginRefused, f"refused the login of user '{user}'")
    Sender(login(node, "anyone")).send("a.b", 1)


def test_a_password_that_is_put_right_lets_the_same_sender_in(node: Broker) -> None:
    sender = Sender(login(node, "changing"))
    fails(sender, LoginRefused, "check name and password")
    node.ctl("change_password", "changing", "hunter2/")
    sender.send("a.b", 1)


def test_a_missing_or_closed_virtual_host_is_refused_by_its_name(node: Broker) -> None:
    for url in (login(node, "anyone")[: -len("%2F")] + "no-such-place", login(node, "nobody")):
        sender = Sender(url)
        fails(sender, VirtualHostRefused, "refused the virtual host")
    node.ctl("set_permissions", "nobody", ".*", ".*", ".*")
    sender.send("a.b", 1)


def test_a_virtual_host_that_is_deleted_under_a_sender_is_refused_from_then_on(node: Broker) -> None:
    sender = Sender(login(node, "anyone")[: -len("%2F")] + "short-lived")
    sender.send("a.b", 1)
    node.ctl("delete_vhost", "short-lived")
    fails(sender, VirtualHostRefused, "short-lived")


def test_a_limit_of_connections_is_waited_for(node: Broker) -> None:
    sender = Sender(login(node, "limited"))
    fails(sender, ConnectionFailed, "limit", timeout=3.0)
    node.ctl("clear_user_limits", "limited", "all")
    sender.send("a.b", 1)


# TLS


def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure(node: Broker) -> None:
    url = node.tls_url.replace("guest:guest", f"anyone:{PASSWORD}")
    sender = Sender(url)
    error = fails(sender, TLSFailed, "certificate is not signed by", timeout=3.0)
    assert isinstance(error, ConnectionFailed)
    trusting = Sender(f"{url}?cacertfile={node.cafile}")
    trusting.send("a.b", 1)
    trusting.close()


def test_a_certificate_for_another_name_is_a_tls_failure(node: Broker) -> None:
    url = node.tls_url.replace("guest:guest", f"anyone:{PASSWORD}")
    sender = Sender(f"{url}?cacertfile={node.cafile}&server_name_indication=broker.example")
    fails(sender, TLSFailed, "broker.example", timeout=3.0)


def test_tls_where_the_broker_speaks_none_is_a_tls_failure(node: Broker) -> None:
    sender = Sender(login(node, "anyone").replace("amqp://", "amqps://"))
    fails(sender, TLSFailed, "TLS failed", timeout=3.0)


def test_no_tls_where_the_broker_wants_it_is_a_failed_connection(node: Broker) -> None:
    sender = Sender(login(node, "anyone").replace(str(urlsplit(node.url).port), str(urlsplit(node.tls_url).port)))
    fails(sender, ConnectionFailed, "not sent within 1 s", timeout=1.0)


# A broker that cannot do what we need


def test_a_broker_without_confirms_is_refused_in_plain_words(node: Broker) -> None:
    with relay(node.url) as wire:
        wire.rewrite_down = (b"publisher_confirms", b"publisher_promises")
        sender = Sender(wire.url)
        for _ in range(2):
            fails(sender, BrokerRefused, "knows no publisher confirms")
        wire.rewrite_down = None
        wire.cut()
        wait_until(lambda: is_sent(sender, BrokerRefused), what="another connection")
        sender.close()


# Several nodes


def test_a_node_that_refuses_decides_nothing_while_others_are_down(node: Broker, looked: Queues, unique: str) -> None:
    queue = looked.declare_watch(unique + "key")
    with outage(node) as (url, repair):
        sender = Sender(
            [url, url.rpartition("/")[0] + "/no-such-place", node.url.rpartition("/")[0] + "/no-such-place"]
        )
        error = fails(sender, ConnectionFailed, "no-such-place", timeout=3.0)
        assert str(urlsplit(url).port) in str(error)  # both are told
        with repair():
            sent = sender.send(unique + "key", 1)
            sender.close()
    assert bodies(looked, queue) == [sent]


def test_nodes_that_all_refuse_are_a_refusal(node: Broker) -> None:
    url = login(node, "anyone", "hunter2-of-old")
    sender = Sender([url, url.replace("127.0.0.1", "localhost")])
    fails(sender, LoginRefused, "refused the login")


def test_the_next_node_is_used_when_the_connected_one_dies(node: Broker, looked: Queues, unique: str) -> None:
    queue = looked.declare_watch(unique + "key")
    with relay(node.url) as first, relay(node.url) as second:
        sender = Sender([first.url, second.url])
        sent = [sender.send(unique + "key", 1)]
        dying, other = (first, second) if first.links else (second, first)
        dying.deaf = True  # and so will be whatever connects to it
        dying.links[0].hold(up=True, down=True)
        sent.append(sender.send(unique + "key", 2))
        assert other.links
        sender.close()
    assert {event.uuid_string for event in bodies(looked, queue)} == {event.uuid_string for event in sent}


def test_all_errors_leave_the_default_sender_working(node: Broker) -> None:
    for _ in range(2):
        with pytest.raises(LoginRefused):
            send_domain_event("a.b", 1, connection_settings=login(node, "anyone", "wrong"))
        send_domain_event("a.b", 1, connection_settings=login(node, "anyone"))
