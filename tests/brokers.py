"""A real RabbitMQ for tests, and a look into its queues.

Without AMQP_URL the session has a private broker, made by `bin/broker`; with it, the tests use that one. What
`bin/broker run --nodes 3 --tls --management` sets, AMQP_URLS and so on, stands for the other brokers then.
BROKER_VERSION chooses the RabbitMQ of all private brokers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.waiting import wait_until

COMMAND = Path(__file__).resolve().parent.parent / "bin" / "broker"
EXCHANGE = "domain-events"
# What `bin/broker` tells of a broker.
VARIABLES = re.compile(r"(AMQPS?_[A-Z]+|MANAGEMENT_URL|BROKER_NAME)=(.*)")
# Tells it, then lives until its standard input ends: with the test run, however that ends.
HOLDER = "env; echo; exec cat > /dev/null"
# A broker to kill; brokers that may be given.
OWNED = {"own_broker", "own_queues"}
GIVEN = {
    "cluster": "AMQP_URLS",
    "cluster_queues": "AMQP_URLS",
    "tls_broker": "AMQPS_URL",
    "managed_broker": "MANAGEMENT_URL",
}

Message = tuple[pika.spec.Basic.GetOk, pika.BasicProperties, bytes]


class Broker:
    """A broker and, when we own it, its life. Nodes are numbered from 1.

    `variables`: what `bin/broker` tells of it.
    """

    def __init__(self, url: str, *, state: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        self.urls = url.split(",")
        self.url = url
        """All of `urls`, comma separated."""
        self.owned = state is not None
        self._variables = variables or {}
        self._state = state

    @property
    def name(self) -> str:
        return self._variables["BROKER_NAME"]

    @property
    def tls_url(self) -> str:
        """amqps://, of node 1."""
        return self._variables["AMQPS_URL"]

    @property
    def cafile(self) -> str:
        return self._variables["AMQPS_CAFILE"]

    @property
    def certfile(self) -> str:
        """A client's certificate: it is asked for, not required."""
        return self._variables["AMQPS_CERTFILE"]

    @property
    def keyfile(self) -> str:
        return self._variables["AMQPS_KEYFILE"]

    @property
    def management_url(self) -> str:
        """http://host:port, of node 1; the login is guest, guest."""
        return self._variables["MANAGEMENT_URL"]

    def kill(self, node: int | None = None) -> None:
        """SIGKILL, as a power cut would, to all nodes unless told.

        See `Queues.settle` when a quorum queue was made just before.
        """
        self._command("kill", self.name, *_number(node))

    def restart(self, node: int | None = None) -> None:
        """Again on the same port with its data; returns when it takes logins. Stops it first if it runs.

        None: the nodes that are down; all when none is.
        """
        self._command("restart", self.name, *_number(node))

    def pause(self, node: int) -> None:
        """SIGSTOP: it keeps its connections and says nothing. For less than a minute: then the others drop it."""
        self._command("pause", self.name, str(node))

    def resume(self, node: int) -> None:
        self._command("resume", self.name, str(node))

    def ctl(self, *args: str, node: int = 1) -> str:
        """What `rabbitmqctl ARGS` prints (or `rabbitmq-queues ...`). Takes a second or more: not for polling."""
        return self._command("ctl", self.name, str(node), "--", *args)

    def control_command(self) -> list[str]:
        """What stands before the arguments of `rabbitmqctl`, or of the tool that they begin with, on a command line."""
        assert self._state is not None
        return ["env", f"BROKER_STATE={self._state}", sys.executable, str(COMMAND), "ctl", self.name, "1", "--"]

    def bring_back(self) -> None:
        """All nodes run again."""
        for node in self._status()["nodes"]:
            if node["state"] == "paused":
                self.resume(node["number"])
        if any(node["state"] == "down" for node in self._status()["nodes"]):
            self.restart()

    def pid(self) -> int | None:
        """The node's process, None while it is down."""
        known = self._status()
        pid: int | None = known["pid"] if known["running"] else None
        return pid

    def _status(self) -> dict[str, Any]:
        [known] = [b for b in json.loads(self._command("status", "--json")) if b["name"] == self.name]
        assert isinstance(known, dict)
        return known

    def _command(self, *args: str) -> str:
        if self._state is None:
            raise RuntimeError("AMQP_URL names a broker that is not ours: mark the test with owns_broker")
        done = subprocess.run(
            [sys.executable, COMMAND, *args],
            env={**os.environ, "BROKER_STATE": str(self._state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        if done.returncode:
            raise RuntimeError(f"bin/broker {' '.join(args)} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout


def _number(node: int | None) -> list[str]:
    return [] if node is None else [str(node)]


@contextlib.contextmanager
def private_broker(
    nodes: int = 1, *, tls: bool = False, management: bool = False, conf: Sequence[str] = ()
) -> Iterator[Broker]:
    """A broker of our own, gone with its data afterwards, also when this process is killed.

    `conf`: lines of rabbitmq.conf.
    """
    state = Path(tempfile.mkdtemp(prefix="de-broker-"))
    options = ["--nodes", str(nodes), *["--tls"][:tls], *["--management"][:management]]
    options += [f"--conf={line}" for line in conf]
    # A broker that was given says nothing about this one.
    surroundings = {key: value for key, value in os.environ.items() if not VARIABLES.fullmatch(f"{key}={value}")}
    try:
        with tempfile.TemporaryFile("w+") as errors:
            holder = subprocess.Popen(
                [sys.executable, COMMAND, "run", *options, "--", "sh", "-c", HOLDER],
                env={**surroundings, "BROKER_STATE": str(state)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the broker in good order
            )
            with holder:
                assert holder.stdin is not None
                assert holder.stdout is not None
                try:
                    told = iter(holder.stdout.readline, "\n")
                    lines = [line.strip() for line in itertools.takewhile(bool, told)]
                    variables = {match[1]: match[2] for match in map(VARIABLES.fullmatch, lines) if match}
                    if "BROKER_NAME" not in variables:
                        holder.wait(10)
                        errors.seek(0)
                        raise RuntimeError(f"no broker for the tests: {errors.read().strip()}")
                    yield Broker(variables["AMQP_URLS"], state=state, variables=variables)
                finally:
                    holder.stdin.close()
                    try:
                        holder.wait(60)
                    except subprocess.TimeoutExpired:
                        holder.terminate()
                        raise
    finally:
        shutil.rmtree(state, ignore_errors=True)


class Queues:
    """A look into the queues of a broker. Every queue named here is deleted at the end of the test.

    Of a cluster: through the first of its nodes that answers.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        self._parameters = [pika.URLParameters(one) for one in url.split(",")]
        for parameters in self._parameters:
            parameters.heartbeat = 0  # a test may be busy elsewhere for longer than any heartbeat
        self._prefix = prefix or f"t{secrets.token_hex(2)}-"
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._queues: dict[str, None] = {}
        self._exchanges: dict[str, None] = {}
        self._watches = 0

    @property
    def channel(self) -> BlockingChannel:
        """An open channel; a new one, or a new connection, when the last was closed."""
        if self._connection is not None and self._connection.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self._connection.process_data_events(0)  # notices that the broker went away meanwhile
        if self._connection is None or not self._connection.is_open:
            self._connection = pika.BlockingConnection(self._parameters)
            self._channel = None
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def declare_watch(self, binding_key: str, *, exchange: str = EXCHANGE, durable: bool = False) -> str:
        """The name of a new queue that gets what is sent from now on under `binding_key`.

        It ends with our connection; `durable`: a quorum queue, which outlives a restart of the broker.
        """
        self._watches += 1
        queue = f"{self._prefix}watch-{self._watches}-{secrets.token_hex(2)}"
        self.channel.exchange_declare(exchange, "topic", durable=True)
        if durable:
            self.forget_after(queue)
            self.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            self.settle()
        else:
            self.channel.queue_declare(queue, exclusive=True)
        self.channel.queue_bind(queue, exchange, binding_key)
        return queue

    def settle(self) -> None:
        """Makes the newest quorum queue outlive a SIGKILL of the broker that comes at once.

        A broker (3.10, 4.0, 4.3) keeps the registration of the quorum queue it made last in memory for up to a
        second: killed in that time, it comes back with an empty queue that refuses every publish. Whatever
        registers or unregisters another writes it down.
        """
        scratch = f"{self._prefix}settle-{secrets.token_hex(2)}"
        self.channel.queue_declare(scratch, durable=True, arguments={"x-queue-type": "quorum"})
        self.channel.queue_delete(scratch)

    def publish(
        self,
        routing_key: str,
        body: bytes,
        *,
        exchange: str = EXCHANGE,
        properties: pika.BasicProperties | None = None,
    ) -> None:
        """Sends these bytes as they are, confirmed. Exchange '' puts them into the queue `routing_key`."""
        if exchange:
            self.channel.exchange_declare(exchange, "topic", durable=True)
        else:
            self.forget_after(routing_key)
        self.channel.basic_publish(
            exchange,
            routing_key,
            body,
            properties or pika.BasicProperties(delivery_mode=2),
            mandatory=not exchange,
        )

    def get(self, queue: str) -> Message | None:
        """Takes the first event that is ready, None when there is none or no such queue."""
        self._mention(queue)
        try:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return None
        if method is None or properties is None or body is None:
            return None
        return method, properties, body

    def drain(self, queue: str) -> list[Message]:
        """Takes all that is ready."""
        return list(iter(lambda: self.get(queue), None))

    def count(self, queue: str) -> int | None:
        """How many events are ready (not those in a child's hands); None: no such queue.

        A quorum queue tells this a little later than it is true: use `wait_count`.
        """
        self._mention(queue)
        try:
            return int(self.channel.queue_declare(queue, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return None

    def wait_count(self, queue: str, n: int, deadline: float = 30.0) -> None:
        """Until exactly `n` events are ready in `queue`; the broker may be away for a while."""
        last: int | None = None

        def reached() -> bool:
            nonlocal last
            try:
                last = self.count(queue)
            except pika.exceptions.AMQPConnectionError:
                last = None
            return last == n

        try:
            wait_until(reached, deadline, pause=0.05)
        except AssertionError:
            raise AssertionError(f"not within {deadline:g} s: {n} events ready in {queue} (now: {last})") from None

    def delete(self, name: str) -> None:
        """Deletes the queue with all that is in it; it need not exist."""
        self.channel.queue_delete(name)

    def forget_after(self, name: str, *retries_ms: int) -> str:
        """Deletes the queue `name`, its dead letters and its retry queues of these delays after the test."""
        for queue in (name, f"{name}:dead", *(f"{name}:retry:{ms}" for ms in retries_ms)):
            self._queues[queue] = None
        return name

    def forget_exchange_after(self, name: str) -> str:
        """Deletes the exchange `name` after the test."""
        self._exchanges[name] = None
        return name

    def close(self) -> None:
        """Deletes what was mentioned and ends the connection."""
        for name in self._queues:
            self.delete(name)
        for name in self._exchanges:
            self.channel.exchange_delete(name)
        self.abandon()

    def abandon(self) -> None:
        """Ends the connection, if any, and leaves the broker as it is."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
        self._connection = self._channel = None

    def _mention(self, queue: str) -> None:
        receiver = queue.removesuffix(":dead").partition(":retry:")[0]
        if queue not in self._queues and "watch-" not in queue:
            self.forget_after(receiver)
            self._queues[queue] = None


@pytest.fixture
def unique() -> str:
    """A short prefix for the queues, exchanges and routing keys of this test alone: `t3f9a-`."""
    return f"t{secrets.token_hex(2)}-"


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of this session. A test that kills or restarts it is marked `owns_broker`."""
    url = os.environ.get("AMQP_URL")
    if url:
        yield Broker(url)
        return
    with private_broker() as started:
        yield started


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker for this test alone, to kill, block or restart (a few seconds)."""
    with private_broker() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Broker]:
    """Three nodes, whole again before each test of the module. Whoever kills or pauses them is marked `owns_broker`."""
    with _given_or_private("AMQP_URLS", nodes=3) as started:
        yield started


@pytest.fixture(scope="module")
def tls_broker() -> Iterator[Broker]:
    """A broker that speaks amqps too."""
    with _given_or_private("AMQPS_URL", tls=True) as started:
        yield started


@pytest.fixture(scope="module")
def managed_broker() -> Iterator[Broker]:
    """A broker with the HTTP API."""
    with _given_or_private("MANAGEMENT_URL", management=True) as started:
        yield started


@contextlib.contextmanager
def _given_or_private(variable: str, **options: Any) -> Iterator[Broker]:
    if os.environ.get("AMQP_URL") and os.environ.get(variable):
        url = os.environ["AMQP_URLS" if variable == "AMQP_URLS" else "AMQP_URL"]
        yield Broker(url, variables=os.environ)
        return
    with private_broker(**options) as started:
        yield started


def owns_broker(fixtures: Container[str]) -> bool:
    """Whether a test with these fixtures needs a broker of our own, as none that will do is given."""
    asked = {variable for name, variable in GIVEN.items() if name in fixtures}
    given = {variable for variable in asked if os.environ.get(variable)}
    if "," not in os.environ.get("AMQP_URLS", ""):
        given.discard("AMQP_URLS")  # one node is no cluster
    return asked > given or any(name in fixtures for name in OWNED)


@pytest.hookimpl(tryfirst=True)  # before those are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Whoever asks for a broker to kill owns it, marked or not.
        if owns_broker(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.owns_broker)


@pytest.fixture(autouse=True)
def whole_cluster(request: pytest.FixtureRequest) -> None:
    """A test of a cluster finds all nodes up, whatever the one before did to them."""
    if "cluster" in request.fixturenames:
        cluster: Broker = request.getfixturevalue("cluster")
        if cluster.owned:
            cluster.bring_back()


@pytest.fixture
def queues(broker: Broker, unique: str) -> Iterator[Queues]:
    """The queues of `broker`."""
    queues = Queues(broker.url, unique)
    yield queues
    queues.close()


@pytest.fixture
def own_queues(own_broker: Broker, unique: str) -> Iterator[Queues]:
    """The queues of `own_broker`."""
    queues = Queues(own_broker.url, unique)
    yield queues
    # The broker goes with its data, and the test may have left it dead.
    with contextlib.suppress(pika.exceptions.AMQPError):
        queues.abandon()


@pytest.fixture
def cluster_queues(cluster: Broker, unique: str) -> Iterator[Queues]:
    """The queues of `cluster`."""
    queues = Queues(cluster.url, unique)
    yield queues
    if cluster.owned:
        cluster.bring_back()  # a queue without its majority cannot be deleted
    queues.close()
