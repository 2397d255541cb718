"""Three nodes: any one of them dies, restarts or falls silent, or two are gone. Nothing is lost, everything comes back.

How long that takes is printed.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from domain_events import DomainEvent, Receiver, Retry, Sender, SendError
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.waiting import wait_until

pytestmark = pytest.mark.owns_broker

NODES = (1, 2, 3)


class Load:
    """Senders and a receiver at work: of ten events one is retried and one given up. A ledger of all of them."""

    def __init__(self, cluster: Broker, name: str, key: str, senders: int = 2) -> None:
        self._cluster = cluster
        self.name = name
        self._key = key
        self.confirmed: list[tuple[float, int]] = []
        self.seen: list[tuple[float, DomainEvent]] = []
        self.failures: list[SendError] = []
        self._numbers = itertools.count()
        self._done = threading.Event()
        self._receiver = Receiver(cluster.url)
        self._receiver.register(self._handle, name, [key], max_retries=3)
        self._receiver.declare()
        self._sender = Sender(cluster.url)
        self._threads = [threading.Thread(target=self._send) for _ in range(senders)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the block; the receiver goes on until it has handled what was confirmed."""
        with consuming(self._receiver):
            for thread in self._threads:
                thread.start()
            try:
                yield
            finally:
                self._done.set()
                for thread in self._threads:
                    thread.join(90)
                self._sender.close()
            # What waits for a retry is counted, not waited for: see docs/cluster.md about RabbitMQ 3.10.
            wait_until(lambda: self._first_tries() <= self._handled(), 60, "everything handled once")
            wait_until(lambda: len(self._missing()) == self._waiting(), 60, "the rest waits for its retry", pause=1)

    def go_on(self, events: int = 50) -> None:
        """Until so many more are confirmed and handled."""
        confirmed, seen = len(self.confirmed), len(self.seen)
        wait_until(lambda: len(self.confirmed) >= confirmed + events, 60, "more events sent")
        wait_until(lambda: len(self.seen) >= seen + events, 60, "more events handled")

    def standstill(self, since: float) -> str:
        """The longest times, from `since` on, in which nothing was confirmed, and nothing handled."""
        confirmed = _longest_gap(since, [when for when, _ in self.confirmed])
        handled = _longest_gap(since, [when for when, _ in self.seen])
        return f"no send confirmed for {confirmed:.1f} s, no event handled for {handled:.1f} s"

    def ledger(self, queues: Queues) -> str:
        """Everything confirmed is handled, waits for a retry or is a dead letter; otherwise an AssertionError."""
        given_up = {n for _, n in self.confirmed if n % 10 == 1}
        dead: collections.Counter[int] = collections.Counter()

        def all_dead() -> bool:
            dead.update(DomainEvent.from_json(body).data for _, _, body in queues.drain(self.name + ":dead"))
            return given_up <= set(dead)

        wait_until(all_dead, 60, "all dead letters")
        waiting = self._missing()
        tries = collections.Counter((event.data, event.retries) for _, event in self.seen)
        twice = tries.total() - len(tries) + dead.total() - len(dead)
        return (
            f"{len(self.confirmed)} confirmed, {len(self._handled() - set(dead) - waiting)} handled, "
            f"{len(waiting)} waiting for a retry, "
            f"{len(dead)} dead letters, {twice} duplicates, 0 lost"
        )

    def _send(self) -> None:
        while not self._done.is_set():
            n = next(self._numbers)
            try:
                self._sender.send(self._key, n, timeout=30)
                self.confirmed.append((time.monotonic(), n))
            except SendError as error:
                self.failures.append(error)
            time.sleep(0.005)  # leaves the machine to the brokers

    def _handle(self, event: DomainEvent) -> None:
        self.seen.append((time.monotonic(), event))
        if event.data % 10 == 0 and event.retries == 0:
            raise Retry(0.3)
        if event.data % 10 == 1:
            raise ValueError(event.data)

    def _first_tries(self) -> set[int]:
        return {n for _, n in self.confirmed}

    def _handled(self) -> set[int]:
        return {event.data for _, event in list(self.seen)}

    def _missing(self) -> set[int]:
        """Retries that have not come back."""
        again = {event.data for _, event in list(self.seen) if event.retries}
        return {n for _, n in self.confirmed if n % 10 == 0} - again

    def _waiting(self) -> int:
        """How many events are in the retry queue, those included that the broker is about to hand on."""
        if not self._missing():
            return 0
        return int(listed(self._cluster, "messages").get(f"{self.name}:retry:300", "0"))


def _longest_gap(since: float, times: list[float]) -> float:
    moments = [since, *(when for when in times if when > since), time.monotonic()]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


def listed(cluster: Broker, column: str) -> dict[str, str]:
    """This column of `rabbitmqctl list_queues`, by queue; asked on the first node that runs."""
    for node in NODES:
        with contextlib.suppress(RuntimeError):
            lines = cluster.ctl("list_queues", "-q", "--no-table-headers", "name", column, node=node).splitlines()
            return dict(line.split("\t") for line in lines if "\t" in line)
    raise AssertionError("no node answers")


def leader(cluster: Broker, queue: str) -> int:
    """The number of the node where the queue's leader is."""
    where = re.search(r"(\d+)@", listed(cluster, "leader")[queue])
    assert where is not None
    return int(where[1])


def node_of(cluster: Broker, connection: str) -> int:
    """The number of the node that the connection of this name goes to."""
    ports = [re.search(r":(\d+)/", url) for url in cluster.urls]
    for line in cluster.ctl("list_connections", "-q", "--no-table-headers", "port", "client_properties").splitlines():
        port, _, properties = line.partition("\t")
        if f'"{connection} ' in properties:
            return [match[1] for match in ports if match].index(port) + 1
    raise AssertionError(f"no connection {connection}")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="")

    return say


def test_any_node_is_killed_and_each_is_restarted_under_load_and_nothing_is_lost(
    cluster: Broker, cluster_queues: Queues, unique: str, tell: Callable[[str], None]
) -> None:
    name = cluster_queues.forget_after(unique + "r", 300)
    load = Load(cluster, name, unique + "key")
    with load.running():
        load.go_on()
        time.sleep(1.5)  # a quorum queue is safe after its first second: docs/decisions/0003
        for what in ("the node that the consumer is connected to", "the node of the queue's leader", "another node"):
            connected, leads = node_of(cluster, f"receiver {name}"), leader(cluster, name)
            other = next(node for node in NODES if node not in (connected, leads))
            node = other if "another" in what else leads if "leader" in what else connected
            since = time.monotonic()
            cluster.kill(node)
            load.go_on()
            tell(f"{what} killed: {load.standstill(since)}")
            cluster.restart(node)
            load.go_on()
        for node in NODES:
            since = time.monotonic()
            cluster.restart(node)
            load.go_on()
            tell(f"node {node} restarted: {load.standstill(since)}")
    tell(load.ledger(cluster_queues))
    assert load.failures == []


def test_without_a_majority_sends_fail_in_time_and_all_goes_on_when_it_is_back(
    cluster: Broker, cluster_queues: Queues, unique: str, tell: Callable[[str], None]
) -> None:
    name, key = cluster_queues.forget_after(unique + "r"), unique + "key"
    seen = Seen()
    receiver = Receiver(cluster.url)
    receiver.register(seen, name, [key])
    receiver.declare()
    sender = Sender(cluster.url)
    cluster_queues.settle()
    with consuming(receiver):
        sender.send(key, 0)
        seen.wait(1)
        cluster.kill(2)
        cluster.kill(3)
        for n in (1, 2):
            began = time.monotonic()
            with pytest.raises(SendError) as failure:
                sender.send(key, n, timeout=2)
            assert time.monotonic() - began < 30, "it has waited for the majority"
            tell(f"two of three nodes killed: {type(failure.value).__name__}: {failure.value}"[:160])
        began = time.monotonic()
        cluster.restart(2)
        wait_until(lambda: is_sent(sender, key, 3), 60, "a send confirmed again")
        wait_until(lambda: 3 in seen.data, 60, "an event handled again")
        tell(f"one of them is back: sent and handled {time.monotonic() - began:.1f} s after its start began")
        cluster.restart(3)
    sender.close()
    # Those that failed may have arrived.
    assert set(seen.data) - {1, 2} == {0, 3}


def is_sent(sender: Sender, key: str, n: int) -> bool:
    try:
        sender.send(key, n)
    except SendError:
        return False
    return True


def test_a_receiver_whose_classic_queue_is_on_a_dead_node_waits_for_it(
    cluster: Broker, cluster_queues: Queues, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = cluster_queues.forget_after(unique + "r"), unique + "key"
    at_home = Queues(cluster.urls[1])
    at_home.channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
    at_home.channel.exchange_declare("domain-events", "topic", durable=True)
    at_home.channel.queue_bind(name, "domain-events", key)
    at_home.abandon()
    seen = Seen()
    receiver = Receiver(cluster.url)
    receiver.register(seen, name, [key], queue_type="classic")
    cluster.kill(2)
    caplog.set_level(logging.WARNING)
    with consuming(receiver):  # it has never consumed: a refusal would end it
        wait_until(lambda: "does not consume" in caplog.text, 40, "the reason in the log")
        # 4.3 gives no answer at all, and is given up after a while.
        assert re.search(rf"receiver {name} does not consume: .*(404.* is down|has not answered)", caplog.text)
        cluster.restart(2)
        Sender(cluster.url).send(key, 1, timeout=30)
        seen.wait(1, 60)
        # Now that it has consumed.
        cluster.kill(2)
        wait_until(lambda: "or its node is down" in caplog.text, what="the reason in the log")
        cluster.restart(2)
        Sender(cluster.url).send(key, 2, timeout=30)
        seen.wait(2, 60)
    Sender(cluster.url).close()
