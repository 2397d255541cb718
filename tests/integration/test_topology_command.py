"""`domain-events topology` on a real broker: what differs is shown, and changed without losing an event."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from domain_events import Receiver, Sender
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.processes import ROOT
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events"), "topology"]
NOBODY = "http://127.0.0.1:1"  # no management plugin there


class Service:
    """A module with one receiver, and the command that looks after its queues."""

    def __init__(self, url: str, queues: Queues, folder: Path, unique: str, management: str = NOBODY) -> None:
        self.url = url
        self.queues = queues
        self.key = f"{unique}asked"
        self.name = queues.forget_after(f"{unique}work", 60_000)
        self._folder = folder
        self._environ = {**os.environ, "DOMAIN_EVENT_BROKER": url, "DOMAIN_EVENTS_MANAGEMENT": management}
        self.code()

    def code(self, name: str | None = None, *keys: str, arguments: str = "") -> None:
        """What its code says from now on."""
        text = f"""
from domain_events import Receiver
receiver = Receiver()
receiver.register(print, {name or self.name!r}, {list(keys or [self.key])!r}, {arguments})
"""
        (self._folder / "app.py").write_text(text)

    def declare_otherwise(self, **arguments: Any) -> None:
        """The queue as earlier code, or another library, has made it."""
        self.queues.channel.exchange_declare("domain-events", "topic", durable=True)
        self.queues.channel.queue_declare(self.name, durable=True, arguments=arguments)
        self.queues.channel.queue_bind(self.name, "domain-events", self.key)
        self.queues.settle()

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, args[0], "app", *args[1:]],
            env=self._environ,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def popen(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, args[0], "app", *args[1:]],
            env=self._environ,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def plan(self) -> list[dict[str, Any]]:
        done = self.run("plan", "--json")
        assert done.returncode == 0, done.stderr
        # Other tests leave receivers that stand still, too.
        return [found for found in json.loads(done.stdout)["differences"] if found["receiver"].startswith(self.name)]

    def kinds(self) -> list[str]:
        return [difference["kind"] for difference in self.plan()]

    def apply(self, *args: str) -> str:
        done = self.run("apply", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bodies(self, queue: str | None = None) -> list[int]:
        """Takes all events out of the queue."""
        return sorted(json.loads(body)["data"]["n"] for _, _, body in self.queues.drain(queue or self.name))


@pytest.fixture
def service(broker: Broker, queues: Queues, tmp_path: Path, unique: str) -> Service:
    return Service(broker.url, queues, tmp_path, unique)


@pytest.fixture
def managed(managed_broker: Any, tmp_path: Path, unique: str) -> Iterator[Service]:
    queues = Queues(managed_broker.url, unique)
    yield Service(managed_broker.url, queues, tmp_path, unique, managed_broker.management_url)
    queues.close()


class Sending:
    """Sends numbered events all the time, until the end of the block."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self.sent: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sending:
        self._thread.start()
        wait_until(lambda: len(self.sent) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with Sender(self._service.url) as sender:
            while not self._over.wait(0.005):
                n = len(self.sent)
                sender.send(self._service.key, {"n": n}, mandatory=True)
                self.sent.append(n)


def test_the_topology_is_shown_without_a_broker(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from domain_events import Receiver\nreceiver = Receiver()\nreceiver.register(print, 'r', ['a.*'])\n"
    )
    environ = {**os.environ, "DOMAIN_EVENT_BROKER": "amqp://127.0.0.1:1"}
    command = [*COMMAND, "show", "--json", "app"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [receiver] = json.loads(done.stdout)
    assert receiver["name"] == "r"
    assert receiver["exchange"] == {"name": "domain-events", "type": "topic", "durable": True}
    assert receiver["binding_keys"] == ["a.*"]
    assert [queue["name"] for queue in receiver["queues"]] == ["r", "r:dead"]
    assert receiver["queues"][0]["arguments"]["x-queue-type"] == "quorum"


def test_a_broker_that_is_away_and_bad_usage_have_their_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from domain_events import Receiver\nreceiver = Receiver()\nreceiver.register(print, 'r', ['a.*'])\n"
    )

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *args], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    away = run("plan", "app", "--broker", "amqp://guest:secret@127.0.0.1:1")
    assert (away.returncode, "secret" in away.stderr) == (3, False)
    assert "127.0.0.1:1" in away.stderr
    assert run("plan").returncode == 2
    assert run("apply", "app", "--rename", "x").returncode == 2
    assert run("plan", "nothing_there").returncode == 2
    unknown = run("apply", "app", "--rename", "x=y", "--broker", "amqp://127.0.0.1:1")
    assert unknown.returncode == 4


def test_what_is_missing_is_planned_and_declared(service: Service) -> None:
    assert {"missing"} == set(service.kinds())
    service.apply()
    assert service.plan() == []
    with Sender(service.url) as sender:
        sender.send(service.key, {"n": 1}, mandatory=True)
    assert service.bodies() == [1]
    assert "nothing to do" in service.apply()


@pytest.mark.parametrize(
    ("there", "argument", "old"),
    [
        pytest.param({}, "x-queue-type", ("none", "classic"), id="classic, of another library"),
        pytest.param({"x-queue-type": "quorum", "x-delivery-limit": 7}, "x-delivery-limit", ("7",), id="another limit"),
    ],
)
def test_a_queue_with_other_arguments_is_made_anew_under_load(
    service: Service, there: dict[str, Any], argument: str, old: Sequence[str]
) -> None:
    service.declare_otherwise(**there)
    with Sending(service) as sending:
        found = {difference["argument"]: difference for difference in service.plan() if difference["argument"]}
        assert found[argument]["there"] in old
        assert found[argument]["wanted"] in ("quorum", "100")
        before = len(sending.sent)
        service.apply()
        assert len(sending.sent) > before, "nobody had to wait"
    assert service.plan() == []
    got = service.bodies()
    assert set(got) == set(sending.sent)
    assert service.queues.count(f"{service.name}:retry:moving") is None


def test_a_queue_gets_and_loses_its_single_active_consumer(managed: Service) -> None:
    managed.apply()
    with Sender(managed.url) as sender:
        sender.send_many([(managed.key, {"n": n}) for n in range(5)])
    for arguments in ("single_active=True", ""):
        managed.code(arguments=arguments)
        assert {difference["argument"] for difference in managed.plan()} == {"x-single-active-consumer"}
        managed.apply()
        assert managed.plan() == []
    assert managed.bodies() == list(range(5))


def test_a_receiver_runs_on_the_queue_that_was_made_anew_and_knows_its_events(service: Service) -> None:
    service.declare_otherwise()
    with Sender(service.url) as sender:
        sender.send(service.key, {"n": 1}, domain_object_id="7", uuid_string="an-id")
    service.apply()
    receiver, seen = Receiver(service.url), Seen()
    receiver.register(seen, service.name, [service.key])
    with consuming(receiver):
        [event] = seen.wait(1)
    assert (event.routing_key, event.domain_object_id, event.uuid_string) == (service.key, "7", "an-id")
    assert event.retries == 0


def test_dead_letter_and_retry_queues_are_made_anew_with_what_is_in_them(managed: Service) -> None:
    dead, waiting = f"{managed.name}:dead", f"{managed.name}:retry:60000"
    managed.apply()
    managed.queues.delete(dead)
    managed.queues.channel.queue_declare(dead, durable=True, arguments={"x-queue-type": "quorum"})
    managed.queues.channel.queue_declare(waiting, durable=True, arguments={"x-queue-type": "quorum"})
    managed.queues.settle()
    for n in range(3):
        for queue in (dead, waiting):
            managed.queues.publish(queue, json.dumps({"data": {"n": n}}).encode(), exchange="")
    assert {difference["queue"] for difference in managed.plan()} == {dead, waiting}
    managed.apply()
    assert managed.plan() == []
    assert managed.bodies(dead) == [0, 1, 2]
    assert managed.bodies(waiting) == [0, 1, 2]


def test_a_running_receiver_is_refused_and_nothing_changes(service: Service) -> None:
    service.declare_otherwise(**{"x-queue-type": "classic"})
    service.queues.channel.basic_consume(service.name, lambda *_: None)
    done = service.run("apply")
    assert done.returncode == 1
    assert "is running (1 consumer): stop it first" in done.stderr
    assert f"domain-events scale {service.name}=0" in done.stderr
    assert service.queues.count(f"{service.name}:retry:moving") is None


def test_an_apply_that_is_killed_anywhere_loses_nothing_and_is_finished_by_the_next(service: Service) -> None:
    dice = random.Random(4)
    service.declare_otherwise()
    with Sending(service) as sending:
        for _ in range(5):
            process = service.popen("apply")
            time.sleep(dice.uniform(0.8, 7.0))  # not a wait for something: where it is hit is left to chance
            process.kill()
            process.wait()
        service.apply()
    assert service.plan() == []
    assert set(service.bodies()) == set(sending.sent)


def test_stale_bindings_are_shown_and_removed(managed: Service) -> None:
    managed.code(None, managed.key, f"{managed.key}.old", "another.#")
    managed.apply()
    managed.code()
    stale = managed.plan()
    assert {difference["kind"] for difference in stale} == {"stale-binding"}
    assert {difference["key"] for difference in stale} == {f"{managed.key}.old", "another.#"}
    assert f"unbound {managed.name} from another.#" in managed.apply()
    assert managed.plan() == []
    with Sender(managed.url) as sender:
        sender.send(managed.key, {"n": 1}, mandatory=True)


def test_a_renamed_receiver_takes_its_events_along_and_an_abandoned_one_is_pruned(managed: Service) -> None:
    old, new, gone = managed.name, f"{managed.name}-new", f"{managed.name}-gone"
    for name in (new, gone):
        managed.queues.forget_after(name, 60_000)
    managed.code(gone, "nobody.cares")
    managed.apply()
    managed.code()
    managed.apply()
    with Sender(managed.url) as sender:
        sender.send_many([(managed.key, {"n": n}) for n in range(10)])
    receiver = Receiver(managed.url)
    receiver.register(print, old, [managed.key])
    waiting = f"{old}:retry:60000"
    managed.queues.channel.queue_declare(
        waiting,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": 60_000,
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": old,
        },
    )
    managed.queues.settle()
    managed.queues.publish(waiting, json.dumps({"data": {"n": 10}}).encode(), exchange="")
    managed.queues.publish(f"{old}:dead", json.dumps({"data": {"n": 11}}).encode(), exchange="")
    managed.code(new)
    orphans = {difference["receiver"] for difference in managed.plan() if difference["kind"] == "orphan"}
    assert {old, gone} <= orphans
    refused = managed.run("apply", "--prune", old)
    assert refused.returncode == 1
    assert f"--rename {old}=NEW" in refused.stderr
    assert managed.run("apply", "--prune", "never-heard-of").returncode == 4
    with Sending(managed) as sending:
        managed.apply("--rename", f"{old}={new}", "--prune", gone)
    assert set(managed.bodies(new)) == {*range(10), *sending.sent}
    assert managed.bodies(f"{new}:retry:60000") == [10]
    assert managed.bodies(f"{new}:dead") == [11]
    for name in (old, f"{old}:dead", waiting, gone, f"{gone}:dead"):
        assert managed.queues.count(name) is None, name
    assert not [difference for difference in managed.plan() if difference["kind"] == "orphan"]
