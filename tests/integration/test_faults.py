"""Handlers that fork, events that harm, brokers that are far away or take nothing: nobody hangs, spins or loses."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pika
import pika.data
import pytest

from domain_events import (
    BrokerBlocked,
    BrokerError,
    DomainEvent,
    Receiver,
    Retry,
    Sender,
    SendError,
    Unroutable,
)
from domain_events.settings import configured_brokers
from domain_events.stopping import Stop
from domain_events.transport.consumer import Consumer
from domain_events.transport.io_thread import IOThread
from domain_events.transport.publication import Publication
from domain_events.transport.publisher import Publisher
from domain_events.transport.tolerance import HEADERS_LEFT_OUT
from domain_events.transport.topology import Queue
from tests.brokers import Broker, Queues
from tests.consuming import Consuming, Seen, consuming
from tests.processes import Processes
from tests.relay import relay
from tests.waiting import wait_until

FORKING = """
import multiprocessing, os, sys, time
from domain_events import Receiver
url, name, key, how = sys.argv[1:]
receiver = Receiver(url)
@receiver.handles(name, [key])
def handle(event):
    if how == "terminate":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        print("child ended with", child.exitcode, flush=True)
    if how == "outlive":
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print("child lives", flush=True)
        time.sleep(60)
    if how == "return":
        child = os.fork()
        if not child:
            if event.data % 2:
                sys.exit(3)
            return
        print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
receiver.start_consuming()
print("stopped", flush=True)
"""


def forking(broker: Broker, name: str, key: str, how: str) -> list[str]:
    receiver = Receiver(broker.url)
    receiver.register(lambda _event: None, name, [key])
    receiver.declare()
    return [sys.executable, "-c", FORKING, broker.url, name, key, how]


def test_a_process_that_a_handler_forked_can_be_terminated_and_the_consumer_goes_on(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    process = processes.start(forking(broker, name, key, "terminate"))
    for n in range(1, 4):
        Sender(broker.url).send(key, n)
        wait_until(lambda n=n: process.output().count("child ended with -15") == n, what="the child terminated")
    queues.wait_count(name, 0)
    assert process.returncode is None
    process.terminate()
    process.wait_output("stopped")
    assert process.wait() == 0
    assert queues.count(name + ":dead") == 0


def test_a_process_that_a_handler_forked_handles_no_events_when_it_comes_back(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    process = processes.start(forking(broker, name, key, "return"))
    Sender(broker.url).send_many([(key, n) for n in range(4)])
    wait_until(lambda: process.output().count("child ended with") == 4, what="all handled")
    process.terminate()
    process.wait_output("stopped")
    assert process.wait() == 0
    assert process.output().count("child ended with 3") == 2
    assert process.output().count("child ended with 1") == 2
    assert (queues.count(name), queues.count(name + ":dead")) == (0, 0)


def test_the_events_of_a_killed_consumer_come_back_while_a_process_that_it_forked_lives_on(
    broker: Broker, queues: Queues, unique: str, processes: Processes
) -> None:
    name, key = queues.forget_after(unique + "r"), unique + "key"
    process = processes.start(forking(broker, name, key, "outlive"))
    Sender(broker.url).send(key, 1)
    process.wait_output("child lives")
    process.kill()
    queues.wait_count(name, 1)  # long before heartbeats are missed
    assert process.group()  # the child


def nested(levels: int) -> bytes:
    """A table in a table, and so on, as AMQP 0-9-1 writes it."""
    value = struct.pack(">cI", b"F", 0)
    for _ in range(levels):
        value = struct.pack(">cI", b"F", len(value) + 2) + b"\x01n" + value
    return value


@pytest.mark.parametrize("levels", [300, 486, 3000])
def test_a_header_that_nests_deeply_harms_neither_its_event_nor_others(
    broker: Broker, queues: Queues, unique: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, key = queues.forget_after(unique + "r", 200), unique + "key"

    def handle(event: DomainEvent) -> None:
        if event.data == "deep":
            raise Retry(0.2)

    seen = Seen(handle)
    receiver = Receiver(broker.url)
    receiver.register(seen, name, [key], max_retries=1)
    receiver.declare()
    encode = pika.data.encode_value

    def encode_raw(pieces: list[bytes], value: object) -> int:
        if value == "deep":
            pieces.append(nested(levels))
            return len(pieces[-1])
        return encode(pieces, value)

    with monkeypatch.context() as patch:
        patch.setattr(pika.data, "encode_value", encode_raw)
        properties = pika.BasicProperties(headers={"deep": "deep", "flat": "flat"})
        queues.publish(key, DomainEvent(key, "deep").to_json().encode(), properties=properties)
    Sender(broker.url).send(key, "other")
    with consuming(receiver):
        queues.wait_count(name + ":dead", 1)
    assert sorted(seen.data) == ["deep", "deep", "other"]
    [(_, dead, _)] = queues.drain(name + ":dead")
    assert dead.headers is not None
    assert (dead.headers["flat"], dead.headers[HEADERS_LEFT_OUT]) == ("flat", 1)


def test_a_broker_that_is_far_away_is_reached_though_no_single_timeout_is_long_enough(broker: Broker) -> None:
    with relay(broker.url) as wire:
        wire.delay = 0.2
        sender = Sender(wire.url)
        for _ in range(10):
            try:
                sender.send("a.b", 1, timeout=2.0)  # to log in takes longer
                break
            except SendError:
                pass
        sender.send("a.b", 2, timeout=2.0)
        assert len(wire.links) == 1
        sender.close()


@pytest.mark.owns_broker
def test_what_is_sent_while_the_broker_takes_nothing_is_not_sent_later(own_broker: Broker, own_queues: Queues) -> None:
    watch = own_queues.declare_watch("a.b")
    sender = Sender(own_broker.url)
    sender.send("a.b", "before")
    own_broker.ctl("set_vm_memory_high_watermark", "0.00001")

    def is_blocked() -> bool:
        try:
            sender.send("a.b", "perhaps", timeout=0.5)  # the broker says that it is blocked when something is sent
        except SendError as error:
            return isinstance(error, BrokerBlocked)
        return False

    wait_until(is_blocked, what="the broker's word")
    for _ in range(50):
        with pytest.raises(BrokerBlocked, match="takes no events"):
            sender.send("a.b", "never", timeout=0.01)
    own_broker.ctl("set_vm_memory_high_watermark", "0.6")
    sender.send("a.b", "after", timeout=30)
    data = [DomainEvent.from_json(body).data for _, _, body in own_queues.drain(watch)]
    assert (data[0], data[-1]) == ("before", "after")
    assert "never" not in data


def test_a_stop_while_a_receiver_subscribes_does_not_play_ball_with_the_broker(
    broker: Broker, queues: Queues, unique: str
) -> None:
    busy, other = queues.forget_after(unique + "busy"), queues.forget_after(unique + "other")
    go_on = threading.Event()
    seen = Seen(lambda _event: go_on.wait(30))
    with relay(broker.url) as wire:
        receiver = Receiver(wire.url)
        receiver.register(seen, busy, [unique + "busy"])
        subscribed = Seen()
        receiver.register(subscribed, other, [unique + "other"])
        receiver.declare()
        declared = len(wire.links)
        running = Consuming(receiver)
        Sender(broker.url).send(unique + "other", 0)
        subscribed.wait(1)
        Sender(broker.url).send(unique + "busy", 1)
        seen.wait(1)
        link = wire.links[declared]
        link.hold_down_at = struct.pack(">HH", 60, 21)  # basic.consume-ok
        queues.delete(other)
        wait_until(lambda: link.is_held, what="the second subscription of the other receiver")
        receiver.stop_consuming()
        Sender(broker.url).send(unique + "other", 2)
        link.hold_down_at = None
        link.let_go()
        queues.wait_count(other, 1)
        [(_, properties, _)] = queues.drain(other)
        go_on.set()
        running.stop()
    assert running.error is None
    assert (properties.headers or {}).get("x-delivery-count", 0) <= 1


def test_a_process_without_free_descriptors_cannot_send_and_says_so_at_once(
    broker: Broker, processes: Processes
) -> None:
    program = """
import os, resource, sys, time
from domain_events import ConnectionFailed, send_domain_event
resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = []
while True:
    try:
        files.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
began = time.monotonic()
try:
    send_domain_event("a.b", 1, connection_settings=sys.argv[1], timeout=200)
except ConnectionFailed as error:
    print(error, time.monotonic() - began < 100)
for file in files:
    os.close(file)
print(send_domain_event("a.b", 2, connection_settings=sys.argv[1]).data)
"""
    process = processes.start([sys.executable, "-c", program, broker.url])
    assert process.wait(300) == 0
    assert process.output() == (
        "not sent: cannot start the thread that sends: [Errno 24] Too many open files True\n2\n"
    )


class Copies:
    """A publisher of copies, and what it said about each of them."""

    def __init__(self, url: str) -> None:
        brokers = configured_brokers(url, "consumer")
        assert brokers is not None
        self.said: dict[str, BrokerError | None] = {}
        self.crashes: list[BaseException] = []
        self._io = IOThread("de-test", self.crashes.append)
        self._publisher = Publisher(self._io, brokers, name="test")
        self._io.start()

    def submit(self, queue: str, body: str, headers: dict[str, object] | None = None) -> None:
        publication = Publication(
            exchange="",
            routing_key=queue,
            properties=pika.BasicProperties(delivery_mode=2, headers=headers),
            body=body.encode(),
            mandatory=True,
            needs=Queue(queue, {"x-queue-type": "quorum"}),
            done=partial(self.said.__setitem__, body),
        )
        self._io.call(partial(self._publisher.submit, publication))

    def wait(self, n: int) -> None:
        wait_until(lambda: len(self.said) == n, what=f"{n} copies confirmed or refused")

    def close(self) -> None:
        closed = threading.Event()
        self._io.call(lambda: self._publisher.close(closed.set))
        assert closed.wait(60)
        self._io.stop()
        assert self.crashes == []


@pytest.fixture
def copies(broker: Broker) -> Iterator[Copies]:
    made = Copies(broker.url)
    yield made
    made.close()


def test_a_copy_for_which_the_broker_ends_the_connection_is_refused_and_the_others_are_stored(
    queues: Queues, unique: str, copies: Copies
) -> None:
    queue = queues.forget_after(unique + "q")
    for n in range(5):
        copies.submit(queue, f"before {n}")
    copies.submit(queue, "harmful", {"large": "x" * 200_000})  # more than fits into a frame
    for n in range(5):
        copies.submit(queue, f"after {n}")
    copies.wait(11)
    assert [body for body, error in copies.said.items() if error is not None] == ["harmful"]
    assert "501 FRAME_ERROR" in str(copies.said["harmful"])
    stored = {body.decode() for _, _, body in queues.drain(queue)}
    assert stored == copies.said.keys() - {"harmful"}


@pytest.mark.owns_broker
def test_a_returned_copy_is_not_taken_for_an_earlier_one_that_waits_for_its_confirm(own_broker: Broker) -> None:
    copies = Copies(own_broker.url)
    copies.submit("q", "first")
    copies.wait(1)
    # The queue neither confirms any more nor can be found: it is being deleted.
    own_broker.ctl("eval", "sys:suspend('%2F_q').")
    copies.submit("q", "stored")
    own_broker.ctl(
        "eval",
        'Q = {resource, <<"/">>, queue, <<"q">>}, try rabbit_db_queue:delete(Q, normal) '
        'catch error:undef -> rabbit_amqqueue:internal_delete(Q, <<"test">>) end.',
    )
    copies.submit("q", "returned")
    copies.wait(2)
    assert isinstance(copies.said["returned"], Unroutable)
    copies.close()


class FailsOnce:
    """A listener whose first call fails, as an error of ours in any callback of pika would."""

    def __init__(self) -> None:
        self.times = 0

    def consuming(self) -> None:
        self.times += 1
        if self.times == 1:
            raise NameError("oops")

    def disconnected(self, reason: str) -> None:
        pass


def test_an_error_of_ours_is_no_outage_of_the_broker_in_the_log(
    broker: Broker, queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(broker.url)
    receiver.register(Seen(), queues.forget_after(unique + "r"), [unique + "key"])
    listener, stop = FailsOnce(), Stop()
    brokers = configured_brokers(broker.url, "consumer")
    assert brokers is not None
    consumer = Consumer(receiver.registrations, brokers, stop=stop, listener=listener)
    consumer.start()
    wait_until(lambda: listener.times == 2, what="it comes back")
    stop.request()
    assert consumer.take() is None
    consumer.close()
    stop.close()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == "an error of this library costs the connection"
    assert record.exc_info is not None
    assert record.exc_info[0] is NameError
