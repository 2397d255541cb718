"""What a broker can do to a consumer: alarms, refusals, time limits, queues that hang, restarts, a stand-still."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pika
import pytest

from domain_events import DomainEvent, Receiver, Retry, Sender
from tests.brokers import Broker, Queues, private_broker
from tests.consuming import Seen, consuming
from tests.integration.test_consumer_faults import Running
from tests.ledger import Ledger, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.owns_broker

ALARM = "{{resource_limit, memory, node()}, []}"
CONSUMING = "P <- rabbit_channel:list_local(), rabbit_channel:info(P, [consumer_count]) > [{consumer_count, 0}]"
RULES = """
rabbit_auth_backend_internal:set_permissions(
    <<"app">>, <<"/">>, <<"{rule}">>, <<"{rule}">>, <<"{rule}">>, <<"test">>).
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Broker]:
    """One for all tests here, each of which leaves it as it was."""
    with private_broker() as started:
        yield started


@pytest.fixture
def node_queues(node: Broker, unique: str) -> Iterator[Queues]:
    queues = Queues(node.url, unique)
    yield queues
    queues.close()


class Scene:
    """A receiver of `node`, what was sent to it, and where that is."""

    def __init__(self, node: Broker, queues: Queues, unique: str, url: str = "", **options: int) -> None:
        self.name, self.key = queues.forget_after(unique + "r", 200), unique + "key"
        self.worker = Worker(0.2)
        self.receiver = Receiver(url or node.url)
        self.receiver.register(self.worker, self.name, [self.key], max_retries=1, **options)
        self.sent: list[tuple[str, int]] = []
        self.sender = Sender(node.url)
        self._ledger = Ledger(queues, self.name, 200)
        self._queues = queues
        self.receiver.declare()
        queues.settle()

    def send(self, *kinds: str) -> None:
        events = [(kind, len(self.sent) + n) for n, kind in enumerate(kinds)]
        self.sender.send_many([(self.key, list(event)) for event in events], timeout=60)
        self.sent += events

    def wait_handled(self, deadline: float = 60.0) -> None:
        """All but the dead ones, at least once."""
        expected = {event for event in self.sent if event[0] != "dead"}
        wait_until(lambda: expected <= {*self.worker.handled}, deadline, "everything handled")
        self._queues.wait_count(self.name, 0)

    def balance(self) -> int:
        return self._ledger.balance(self.sent, self.worker.handled)


def test_copies_wait_for_the_end_of_an_alarm_and_handling_goes_on(
    node: Broker, node_queues: Queues, unique: str
) -> None:
    scene = Scene(node, node_queues, unique)
    with consuming(scene.receiver):
        scene.send("retry", "dead")  # the connection for copies is there
        scene.wait_handled()
        scene.send("slow", "retry", "plain", "dead", "retry", "plain")
        scene.worker.wait_begun(4)
        node.ctl("eval", f"rabbit_alarm:set_alarm({ALARM}).")
        scene.worker.go_on.set()
        wait_until(lambda: scene.worker.handled.count(("plain", 7)) == 1, what="the last one handled")
        assert ("retry", 3) not in scene.worker.handled
        # It comes and goes.
        flapping = (
            "rabbit_alarm:set_alarm(A), timer:sleep(40), rabbit_alarm:clear_alarm(element(1, A)), timer:sleep(20)"
        )
        node.ctl("eval", f"A = {ALARM}, [begin {flapping} end || _ <- lists:seq(1, 10)].")
        scene.send("retry", "dead")
        scene.wait_handled()
        node_queues.wait_count(scene.name + ":dead", 3)
    assert scene.balance() == 0


def test_a_login_whose_permissions_are_taken_away_is_tried_again_until_it_has_them_back(
    node: Broker, node_queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.ctl(
        "eval",
        'rabbit_auth_backend_internal:add_user(<<"app">>, <<"secret">>, <<"test">>),' + RULES.format(rule=".*").strip(),
    )
    scene = Scene(node, node_queues, unique, node.url.replace("guest:guest", "app:secret"))
    with consuming(scene.receiver):
        scene.send("plain")
        scene.wait_handled()
        node.ctl(
            "eval", RULES.format(rule="^$").strip().rstrip(".") + ', rabbit_networking:close_all_connections("x").'
        )
        wait_until(lambda: "ACCESS_REFUSED" in caplog.text, what="the refusal in the log")
        scene.send("plain", "retry")
        # Then not even the virtual host.
        node.ctl(
            "eval",
            'rabbit_auth_backend_internal:clear_permissions(<<"app">>, <<"/">>, <<"test">>), '
            'rabbit_networking:close_all_connections("x").',
        )
        wait_until(lambda: "530" in caplog.text, what="the other refusal")
        node.ctl("eval", RULES.format(rule=".*").strip())
        scene.wait_handled()
    assert scene.balance() == 0
    assert "trying again in" in caplog.text


def test_an_event_in_hand_for_longer_than_the_broker_waits_comes_again_and_others_go_on(
    node: Broker, node_queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.ctl(
        "eval",
        "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500).",
    )
    try:
        scene = Scene(node, node_queues, unique, threads=2)
        other = Seen()
        scene.receiver.register(other, node_queues.forget_after(unique + "other"), [unique + "other"])
        with consuming(scene.receiver):
            scene.send("slow")
            scene.worker.wait_begun(2)  # in the other thread
            for n in range(5):
                scene.sender.send(unique + "other", n)
            other.wait(5)
            scene.worker.go_on.set()
            scene.send("plain")
            scene.wait_handled()
            wait_until(lambda: scene.worker.handled.count(("slow", 0)) >= 2, what="both ends of the slow one")
    finally:
        node.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    assert scene.balance() >= 1
    assert other.data == list(range(5))  # none of them twice: its channel was left alone
    assert "timed out" in caplog.text or "had been in hand for" in caplog.text


def test_a_queue_that_hangs_stops_its_receiver_alone_and_the_log_says_so(
    node: Broker, node_queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, healthy = node_queues.forget_after(unique + "hanging"), node_queues.forget_after(unique + "healthy")
    receiver = Receiver(node.url)
    receiver.register(Seen(), hanging, [unique + "key"], queue_type="classic")
    receiver.register(Seen(), healthy, [unique + "key"])
    receiver.declare()
    sender = Sender(node.url)
    sender.send(unique + "key", "before")
    process = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{hanging}">>)), '
    node.ctl("eval", process + "sys:suspend(amqqueue:get_pid(Q)).")
    with Running(receiver, node.url, patience=2.0) as running:
        running.wait(lambda: running.receivers == [healthy], "the event of the healthy one")
        running.wait(lambda: caplog.text.count(f"receiver {hanging} does not consume") >= 2, "two tries")
        assert "the broker has not answered for 2 s" in caplog.text
        assert running.told.times == 0
        node.ctl("eval", process + "sys:resume(amqqueue:get_pid(Q)).")
        running.wait(lambda: running.told.times == 1, "it consumes")
        running.wait(lambda: running.receivers == [healthy, hanging], "its event")
    assert f"receiver {healthy} does not consume" not in caplog.text
    node_queues.wait_count(hanging, 0)


def test_a_channel_that_hangs_is_noticed_and_what_it_held_comes_again(
    node: Broker, node_queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = node_queues.forget_after(unique + "r"), unique + "key"
    receiver = Receiver(node.url)
    receiver.register(Seen(), name, [key])
    with Running(receiver, node.url, patience=2.0, renewed_every=0.4) as running:
        running.wait(lambda: running.told.times == 1, "it consumes")
        node.ctl("eval", f"[catch sys:suspend(P, 1000) || {CONSUMING}].")
        Sender(node.url).send(key, 1)
        running.wait(lambda: running.receivers == [name], "the event")
    assert "has not answered for 4 s; connecting again" in caplog.text


def test_headers_are_cut_to_what_fits_into_the_frames_of_this_broker(
    node: Broker, node_queues: Queues, unique: str
) -> None:
    name, key = node_queues.forget_after(unique + "r", 200), unique + "key"

    def handle(event: DomainEvent) -> None:
        if not event.retries:
            raise Retry(0.2)
        raise ValueError("ü" * 20_000)

    receiver = Receiver(node.url)
    receiver.register(handle, name, [key], max_retries=1)
    receiver.declare()
    large = pika.BasicProperties(headers={f"foreign-{n}": "x" * 1000 for n in range(20)}, delivery_mode=2)
    node_queues.publish(key, DomainEvent(key, 1).encode(), properties=large)
    node.ctl("eval", "application:set_env(rabbit, frame_max, 8192).")  # from 4.1 on, the least
    try:
        with consuming(receiver):
            node_queues.wait_count(name + ":dead", 1)
            node_queues.wait_count(name, 0)
    finally:
        node.ctl("eval", "application:set_env(rabbit, frame_max, 131072).")
    [(_, dead, _)] = node_queues.drain(name + ":dead")
    assert dead.headers is not None
    assert dead.headers["domain-events-headers-left-out"] > 0
    assert dead.headers["domain-events-error-type"] == "ValueError"
    assert dead.headers["domain-events-routing-key"] == key


@pytest.mark.parametrize("how", ["its application stops and starts", "its process stands still"])
def test_a_broker_that_is_away_for_a_while_loses_nothing(
    node: Broker, node_queues: Queues, unique: str, how: str
) -> None:
    scene = Scene(node, node_queues, unique, node.url + "?heartbeat=1")
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            scene.send("plain", "retry", "dead")

    with consuming(scene.receiver):
        scene.send("retry", "dead")
        scene.wait_handled()
        time.sleep(1.2)  # its retry queue survives a stop now: docs/decisions/0003
        sending = threading.Thread(target=load)
        sending.start()
        wait_until(lambda: len(scene.sent) > 20, what="some load")
        began = time.monotonic()
        if how == "its process stands still":
            node.pause(1)
            time.sleep(4)  # two heartbeats are missed
            node.resume(1)
        else:
            node.ctl("stop_app")
            node.ctl("start_app")
        back = time.monotonic()
        at = len(scene.sent)
        wait_until(lambda: len(scene.sent) > at + 20, 60, "load again")
        done.set()
        sending.join(60)
        scene.wait_handled(60)
        recovered = min(at for at in scene.worker.at if at > back) - back
    twice = scene.balance()
    away = back - began
    print(f"{len(scene.sent)} sent, away for {away:.1f} s, handled again after {recovered:.1f} s, {twice} twice")
