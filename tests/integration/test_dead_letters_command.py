"""`domain-events dead-letters` on a real broker: all that is there is shown, whatever interrupts it loses nothing."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest

from domain_events import DeadLetter, DomainEvent, Receiver, Retry, Sender
from domain_events.errors import BrokerError
from domain_events.settings import configured_brokers
from domain_events.transport.dead_letters.queue import LARGEST_PAGE, Busy, DeadLetterQueue
from domain_events.transport.wire import DEAD_AT, ERROR_TYPE, REASON, ROUTING_KEY
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.processes import ROOT
from tests.relay import relay
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events"), "dead-letters"]
KEYS = {"id", "routing_key", "reason", "error_type", "error_message", "retries", "sent_at", "dead_at", "host"}


class Dead:
    """A receiver with its dead letters, and the command that looks after them."""

    def __init__(self, broker: Broker, queues: Queues, unique: str) -> None:
        self.url = broker.url
        self.queues = queues
        self.name = queues.forget_after(f"{unique}work", 10, 50)
        self.key = f"{unique}asked"
        self._receiver = Receiver(self.url)
        self._receiver.register(lambda event: self._handler(event), self.name, [self.key], max_retries=2)
        self._receiver.declare()
        self._handler: Callable[[DomainEvent], Any] = print

    @contextmanager
    def consuming(self, handler: Callable[[DomainEvent], Any]) -> Iterator[None]:
        self._handler = handler
        with consuming(self._receiver):
            yield

    def die(self, handler: Callable[[DomainEvent], Any], *data: Any) -> None:
        """Events that `handler` leads to the dead letters."""
        before = self.queues.count(f"{self.name}:dead") or 0
        with Sender(self.url) as sender:
            sender.send_many([(self.key, each) for each in data])
        with self.consuming(handler):
            self.queues.wait_count(f"{self.name}:dead", before + len(data))

    def put(self, count: int, *, size: int = 0, already: int = 0, **headers: Any) -> None:
        """So many letters straight into the queue, faster than by way of a handler. `already`: how many it has."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url.split(",")[0]))
        channel = connection.channel()
        for n in range(already, already + count):
            event = DomainEvent(self.key, {"n": n, "of": n % 10, "more": "x" * size}, uuid_string=f"id-{n}")
            notes = {
                ROUTING_KEY: self.key,
                REASON: "the handler raised ValueError",
                ERROR_TYPE: "ValueError",
                DEAD_AT: f"{1_700_000_000 + n:.6f}",
                **headers,
            }
            properties = pika.BasicProperties(
                content_type="application/json", message_id=f"id-{n}", delivery_mode=2, headers=notes
            )
            channel.basic_publish("", f"{self.name}:dead", event.to_json(), properties)
        # First: a quorum queue may lose what has no confirm and is still on its way when its channel ends.
        self.queues.wait_count(f"{self.name}:dead", already + count, 60.0)
        connection.close()

    def run(self, verb: str, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, verb, self.name, *args], env=self.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, f"{done.returncode}: {done.stderr}"
        return done

    def list(self, *args: str) -> list[dict[str, Any]]:
        found = json.loads(self.run("list", "--json", *args).stdout)
        assert isinstance(found, list)
        return found

    def popen(self, verb: str, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, verb, self.name, *args],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "DOMAIN_EVENT_BROKER": self.url}

    def ids(self, queue: str) -> Counter[str]:
        """Takes all that is in the receiver's queue, or with ':dead' in that of its dead letters."""
        return Counter(json.loads(body)["uuid_string"] for _, _, body in self.queues.drain(f"{self.name}{queue}"))


@pytest.fixture
def dead(broker: Broker, queues: Queues, unique: str) -> Dead:
    return Dead(broker, queues, unique)


def fail(event: DomainEvent) -> None:
    raise ValueError(f"no user {event.data['n']}")


def fail_elsewhere(event: DomainEvent) -> None:
    raise KeyError("user")


def give_up(event: DomainEvent) -> None:
    raise DeadLetter("no such user")


def test_the_list_has_all_that_a_script_relies_on_and_takes_nothing_away(dead: Dead) -> None:
    began = time.time()
    dead.die(fail, {"n": 1}, {"n": 2})
    dead.die(give_up, {"n": 3})
    dead.queues.publish(f"{dead.name}:dead", b"garbage", exchange="")
    dead.queues.wait_count(f"{dead.name}:dead", 4)
    for _ in range(3):
        garbage, *found = dead.list()
        assert [set(each) for each in found] == [KEYS] * 3
        assert [each["error_type"] for each in found] == ["ValueError", "ValueError", "DeadLetter"]
        assert [each["error_message"] for each in found[:2]] == ["no user 1", "no user 2"]
        assert [each["reason"] for each in found] == ["the handler raised ValueError"] * 2 + ["no such user"]
        assert all(each["routing_key"] == dead.key and each["retries"] == 0 for each in found)
        assert all(began - 1 < each["sent_at"] <= each["dead_at"] < time.time() + 1 for each in found)
        assert garbage["id"].startswith("sha256:")
        assert len(garbage["id"]) == len("sha256:") + 16
        assert garbage["dead_at"] is None
    dead.queues.wait_count(f"{dead.name}:dead", 4)


def test_for_people_they_are_grouped_by_cause(dead: Dead) -> None:
    dead.die(fail, *({"n": n} for n in range(7)))
    dead.die(fail_elsewhere, {"n": 7})
    title, first, second = dead.run("list").stdout.splitlines()
    assert title.split()[:2] == ["FINGERPRINT", "COUNT"]
    assert first.split()[1] == "7"
    assert "ValueError at tests/integration/test_dead_letters_command.py in fail " in first
    assert "no user 6" in first
    assert second.split()[1] == "1"
    assert "KeyError at tests/integration/test_dead_letters_command.py in fail_elsewhere" in second
    fingerprint = second.split()[0]
    [only] = dead.list("--fingerprint", fingerprint)
    assert only["error_type"] == "KeyError"


def test_filters_are_all_to_be_true(dead: Dead) -> None:
    dead.put(30)
    assert [each["id"] for each in dead.list("--where", "data.of=7")] == ["id-7", "id-17", "id-27"]
    assert [each["id"] for each in dead.list("--where", "data.of=7", "--since", "1700000010")] == ["id-17", "id-27"]
    assert [each["id"] for each in dead.list("--id", "id-3", "id-1")] == ["id-1", "id-3"]
    assert len(dead.list("--before", "2023-11-14T22:13:30Z")) == 10
    assert dead.list("--since", "1h") == []
    assert dead.list("--error-type", "KeyError") == []
    assert len(dead.list("--routing-key", "#")) == 30
    assert dead.list("--routing-key", "other.*") == []
    lines = dead.run("list", "--each", "--where", "data.of=7").stdout.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["id-7", "id-17", "id-27"]


def test_one_is_shown_with_its_data_and_its_traceback(dead: Dead) -> None:
    dead.die(fail, {"n": 1, "name": "\x1b[31mred\nid: forged"})
    [entry] = dead.list()
    shown = json.loads(dead.run("show", entry["id"], "--json").stdout)
    assert shown == {**entry, "data": shown["data"], "traceback": shown["traceback"]}
    assert shown["data"] == {"n": 1, "name": "\x1b[31mred\nid: forged"}
    assert shown["traceback"].startswith("Traceback")
    assert "raise ValueError" in shown["traceback"]
    text = dead.run("show", entry["id"]).stdout
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("id:") and entry["id"] not in line]
    assert "is no dead letter" not in dead.run("show", "unknown", code=4).stdout


def test_what_is_replayed_is_as_it_was_before_its_first_failure(dead: Dead) -> None:
    def twice(event: DomainEvent) -> None:
        raise Retry(0.01)

    dead.die(twice, {"n": 1})
    [entry] = dead.list()
    assert entry["retries"] == 2
    assert dead.run("replay", "--all", "--dry-run").stderr.startswith("domain-events: 1 events would be replayed")
    assert dead.list() == [entry]
    dead.run("replay", "--id", entry["id"])
    assert dead.list() == []
    [(_, properties, _)] = dead.queues.drain(dead.name)
    assert set(properties.headers) - {"x-delivery-count", "x-acquired-count"} == {
        "domain-events-routing-key",
        "domain-events-replay",
    }
    assert properties.headers["domain-events-routing-key"] == dead.key
    assert properties.message_id == entry["id"]


def test_replayed_events_are_handled_by_this_receiver_alone(dead: Dead, unique: str) -> None:
    other = dead.queues.forget_after(f"{unique}other")
    bystander = Receiver(dead.url)
    bystander.register(print, other, [dead.key])
    dead.die(fail, {"n": 1}, {"n": 2})
    bystander.declare()
    dead.run("replay", "--where", "data.n=2")
    seen = Seen()
    with dead.consuming(seen):
        [event] = seen.wait(1)
    assert (event.data, event.retries, event.routing_key) == ({"n": 2}, 0, dead.key)
    assert dead.queues.count(other) == 0
    assert [each["error_message"] for each in dead.list()] == ["no user 1"]


def test_a_replay_whose_events_fail_again_comes_to_an_end(dead: Dead) -> None:
    dead.die(fail, *({"n": n} for n in range(100)))
    with dead.consuming(fail):
        done = dead.run("replay", "--all", "--json")
        dead.queues.wait_count(f"{dead.name}:dead", 100)
    numbers = json.loads(done.stdout)
    assert numbers["replayed"] == 100
    assert numbers["came_back"] <= 100


def test_discarding_is_for_good_and_wants_a_word(dead: Dead) -> None:
    dead.put(10)
    dead.run("discard", "--all", code=2)
    dead.run("discard", "--yes", code=2)
    dead.run("replay", code=2)
    dead.run("replay", "--all", "--id", "id-1", code=2)
    assert len(dead.list()) == 10
    assert json.loads(dead.run("discard", "--where", "data.n<4", "--yes", "--json").stdout)["discarded"] == 4
    assert [each["id"] for each in dead.list()] == [f"id-{n}" for n in range(4, 10)]
    done = dead.run("discard", "--id", "id-4", "nonsense", "--yes", code=4)
    assert "nonsense" in done.stderr
    assert dead.ids("") == Counter()
    assert len(dead.list()) == 5


def test_unknown_receivers_and_brokers_that_are_away_have_codes_of_their_own(dead: Dead) -> None:
    dead.name += "-nobody"
    for verb in (["list"], ["show", "x"], ["replay", "--all"], ["discard", "--all", "--yes"]):
        assert "there is no receiver" in dead.run(*verb, code=4).stderr
    dead.run("list", "--broker", "amqp://guest:secret@127.0.0.1:1/", code=3)
    assert "secret" not in dead.run("list", "--broker", "amqp://guest:secret@127.0.0.1:1/", code=3).stderr


@pytest.mark.parametrize("name", ["x" * 300, "x" * 230, "printer:dead", ""])
def test_a_name_that_no_receiver_can_have_is_unknown(dead: Dead, name: str) -> None:
    dead.name = name
    assert "receiver name" in dead.run("list", code=4).stderr


def test_two_looks_do_not_see_halves(dead: Dead) -> None:
    dead.put(2000)
    brokers = configured_brokers(dead.url, "consumer")
    assert brokers is not None
    with DeadLetterQueue(brokers, dead.name) as queue:
        assert len(next(queue.pages())) < 2000
        with pytest.raises(Busy, match="somebody else looks"), DeadLetterQueue(brokers, dead.name, lock_patience=0.5):
            pass
        waiting = dead.popen("list", "--json")  # for us, if it is here before we leave
    out, _ = waiting.communicate(timeout=120)
    assert len(json.loads(out)) == 2000


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_whatever_interrupts_a_replay_loses_nothing_and_hardly_anything_comes_twice(
    dead: Dead, signum: signal.Signals
) -> None:
    dead.put(1000)
    with relay(dead.url) as wire:
        wire.delay = 0.05  # it takes seconds, so that it is hit before its end
        dead.url = wire.url
        replay = dead.popen("replay", "--all")
        wait_until(lambda: (dead.queues.count(dead.name) or 0) > 100, what="some are there")
        replay.send_signal(signum)
        _, words = replay.communicate(timeout=60)
    assert replay.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 130)
    replayed, left = Counter[str](), Counter[str]()

    def all_found() -> bool:  # what the dead one held comes back a moment later
        replayed.update(dead.ids(""))
        left.update(dead.ids(":dead"))
        return len(replayed | left) == 1000

    wait_until(all_found, what="all of them")
    assert max(replayed.values()) == max(left.values()) == 1
    twice = replayed & left
    assert len(twice) <= (16 if signum == signal.SIGKILL else 0)
    if signum != signal.SIGKILL:
        assert f"{len(replayed)} replayed" in words
        assert "stopped: interrupted" in words


def test_a_killed_look_leaves_all_there(dead: Dead) -> None:
    dead.put(3000)
    code = f"""
import time
from domain_events.settings import configured_brokers
from domain_events.transport.dead_letters.queue import DeadLetterQueue
with DeadLetterQueue(configured_brokers({dead.url!r}, "consumer"), {dead.name!r}) as queue:
    pages = queue.pages()
    print(len(next(pages)) + len(next(pages)), flush=True)
    time.sleep(600)
"""
    look = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert look.stdout is not None
    held = int(look.stdout.readline())
    assert 0 < held < 3000
    dead.queues.wait_count(f"{dead.name}:dead", 3000 - held)
    look.kill()
    look.communicate(timeout=60)
    dead.queues.wait_count(f"{dead.name}:dead", 3000)  # when the broker has noticed
    assert len(dead.list()) == 3000


@pytest.mark.owns_broker
def test_a_broker_that_dies_under_a_replay_loses_nothing(own_broker: Broker, unique: str) -> None:
    queues = Queues(own_broker.url)
    dead = Dead(own_broker, queues, unique)
    queues.settle()
    dead.put(1000)
    with relay(dead.url) as wire:
        wire.delay = 0.1  # it takes many seconds: a kill takes one or two
        dead.url = wire.url
        replay = dead.popen("replay", "--all")
        wait_until(lambda: (queues.count(dead.name) or 0) > 200, what="some are there")
        own_broker.kill()
        _, words = replay.communicate(timeout=120)
    assert replay.returncode in (1, 3)
    assert "events were replayed until then" in words
    own_broker.restart()
    replayed, left = Counter[str](), Counter[str]()

    def all_found() -> bool:
        replayed.update(dead.ids(""))
        left.update(dead.ids(":dead"))
        return len(replayed | left) == 1000

    wait_until(all_found, 60.0, "all of them")
    assert len(replayed & left) <= 16
    queues.abandon()


@pytest.mark.owns_broker
def test_a_connection_that_is_lost_between_two_steps_sends_nothing_twice(own_broker: Broker, unique: str) -> None:
    queues = Queues(own_broker.url)
    dead = Dead(own_broker, queues, unique)
    dead.put(5)
    [brokers] = [configured_brokers(dead.url, "consumer")]
    assert brokers is not None
    with DeadLetterQueue(brokers, dead.name) as queue:
        [page] = queue.pages()
        own_broker.ctl("close_all_connections", "test")
        with pytest.raises(BrokerError):
            queue.replay(page, "run")
    assert queues.count(dead.name) == 0
    # All was seen: that there is nobody any more who could give them back is no failure.
    with DeadLetterQueue(brokers, dead.name) as queue:
        [page] = queue.pages()
        own_broker.ctl("close_all_connections", "test")
    queues.wait_count(f"{dead.name}:dead", 5)
    queues.abandon()


def test_many_are_listed_oldest_first_in_bounded_memory(dead: Dead) -> None:
    """Also when they have changed places: RabbitMQ mixes up what is given back."""

    def peak(*args: str) -> tuple[int, str]:
        code = (
            "import resource, sys; from domain_events.cli.operator.command import main; code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "dead-letters", "list", dead.name, *args],
            env=dead.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=ROOT,
        )
        return int(done.stderr.split()[-1]), done.stdout

    few, _ = peak("--json", "--id", "id-1")
    dead.put(6_000, size=6_000)  # 38 MB
    for _ in range(2):
        many, text = peak("--json")
        assert [each["id"] for each in json.loads(text)] == [f"id-{n}" for n in range(6_000)]
        assert many - few < 20_000, "KiB"


def test_large_letters_come_in_small_pages(dead: Dead) -> None:
    dead.put(30, size=2**20)
    [brokers] = [configured_brokers(dead.url, "consumer")]
    assert brokers is not None
    with DeadLetterQueue(brokers, dead.name) as queue:
        sizes = [len(page) for page in queue.pages()]
    assert sum(sizes) == 30
    assert max(sizes) <= 20
    assert all(size <= 15 for size in sizes[1:])


def test_large_letters_behind_small_ones_do_not_come_all_at_once(dead: Dead) -> None:
    dead.put(20)
    dead.put(60, size=2**20, already=20)
    [brokers] = [configured_brokers(dead.url, "consumer")]
    assert brokers is not None
    for _ in range(2):  # what came beyond the page is still there
        with DeadLetterQueue(brokers, dead.name) as queue:
            pages = [(len(page), sum(len(letter.body) for letter in page)) for page in queue.pages()]
        assert sum(count for count, _ in pages) == 80
        assert max(size for _, size in pages) <= LARGEST_PAGE + 2**21


def test_a_queue_that_is_deleted_under_a_look_ends_it(dead: Dead) -> None:
    dead.put(3)
    with relay(dead.url) as wire:
        wire.hold_down_at = b"id-2"  # the last: it has them, and does not know it
        dead.url = wire.url
        look = dead.popen("list")
        try:
            wait_until(lambda: dead.queues.count(f"{dead.name}:dead") == 0, what="it holds them")
            dead.queues.channel.queue_delete(f"{dead.name}:dead")
            for link in wire.links:
                link.hold_down_at = None
                link.let_go()
            _, words = look.communicate(timeout=60)
        finally:
            look.kill()
    assert look.returncode in (0, 1)  # 0: it had come to its end
    assert "Traceback" not in words


def test_a_login_that_may_make_no_queues_can_look_all_the_same(managed_broker: Broker, unique: str) -> None:
    queues = Queues(managed_broker.url)
    dead = Dead(managed_broker, queues, unique)
    try:
        dead.put(3)
        with _limited_login(managed_broker, unique) as url:
            dead.url = url
            assert len(dead.list()) == 3
            assert "others are not kept out" in dead.run("list").stderr
            assert "others are not kept out" in dead.run("discard", "--id", "id-1", "--yes").stderr
            assert "others are not kept out" in dead.run("replay", "--all").stderr
    finally:
        queues.close()


@contextmanager
def _limited_login(broker: Broker, unique: str) -> Iterator[str]:
    """May read and write, and configure nothing."""
    import base64
    import urllib.request

    user, password = f"{unique}user", secrets.token_hex(8)

    def put(what: str, body: dict[str, str] | None) -> None:
        request = urllib.request.Request(
            f"{broker.management_url}/api/{what}",
            method="DELETE" if body is None else "PUT",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(b'guest:guest').decode()}",
                "Content-Type": "application/json",
            },
        )
        urllib.request.urlopen(request, timeout=30).close()

    put(f"users/{user}", {"password": password, "tags": ""})
    try:
        put(f"permissions/%2F/{user}", {"configure": "^$", "write": ".*", "read": ".*"})
        yield broker.urls[0].replace("guest:guest", f"{user}:{password}")
    finally:
        put(f"users/{user}", None)
