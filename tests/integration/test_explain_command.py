"""`domain-events explain` on a real broker: who gets an event, and what of it is not as the code wants it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest

from domain_events import Receiver
from domain_events.transport.routing import matches
from tests.brokers import Broker, Queues
from tests.consuming import Seen, consuming
from tests.processes import ROOT
from tests.waiting import wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "domain-events"), "explain"]
NOBODY = "http://127.0.0.1:1"  # no management plugin there

APP = """
from domain_events import Backoff, Receiver
receiver = Receiver(exchange="{u}events")
def print_badge(event): ...
receiver.register(print_badge, "{u}printer", ["user.*"], max_retries=3, retry_on=ConnectionError, timeout=30)
receiver.register(print_badge, "{u}crm", ["user.#", "account.closed"], dead_letter=False)
receiver.register(print_badge, "{u}never", ["user.disabled"])
receiver.register(print_badge, "{u}orders", ["order.*"])
"""


class Service:
    """A module with receivers at a broker with the management plugin, and the command that explains."""

    def __init__(self, broker: Broker, queues: Queues, folder: Path, unique: str) -> None:
        self.queues = queues
        self.unique = unique
        self.folder = folder
        self.url = broker.url
        self.management = broker.management_url
        # Of its own: others may have queues that get everything.
        self.exchange = queues.forget_exchange_after(f"{unique}events")
        queues.channel.exchange_declare(self.exchange, "topic", durable=True)
        for name in ("printer", "crm", "never", "orders"):
            queues.forget_after(unique + name)
        (folder / "app.py").write_text(APP.format(u=unique))

    def declare(self, *names: str) -> None:
        receiver = Receiver(self.url, exchange=self.exchange)
        keys = {"printer": ["user.*"], "crm": ["user.#", "account.closed"], "orders": ["order.*"]}
        for name in names:
            receiver.register(print, self.unique + name, keys[name], dead_letter=name != "crm")
        receiver.declare()

    def bind(self, queue: str, key: str) -> None:
        self.queues.channel.queue_bind(self.unique + queue, self.exchange, key)

    def unbind(self, queue: str, key: str) -> None:
        self.queues.channel.queue_unbind(self.unique + queue, self.exchange, key)

    def run(self, key: str, *args: str, management: str | None = None) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "DOMAIN_EVENT_BROKER": self.url,
            "DOMAIN_EVENTS_MANAGEMENT": management or self.management,
        }
        command = [*COMMAND, key, *args, *(["--exchange", self.exchange] if "app" not in args else [])]
        done = subprocess.run(command, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done

    def explain(self, key: str, *args: str, **options: Any) -> dict[str, Any]:
        done = self.run(key, *args, "--json", **options)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def verdicts(self, key: str, **options: Any) -> dict[str, str]:
        found = self.explain(key, "app", **options)["receivers"]
        return {each["name"].removeprefix(self.unique): each["verdict"] for each in found}


@pytest.fixture
def service(managed_broker: Broker, tmp_path: Path, unique: str) -> Iterator[Service]:
    queues = Queues(managed_broker.url, unique)
    yield Service(managed_broker, queues, tmp_path, unique)
    queues.close()


def test_code_and_broker_are_compared(service: Service) -> None:
    service.declare("printer", "crm", "orders")
    assert service.verdicts("user.disabled") == {"printer": "gets", "crm": "gets", "never": "missing"}
    service.unbind("crm", "user.#")
    service.bind("orders", "user.#")
    assert service.verdicts("user.disabled") == {
        "printer": "gets",
        "crm": "missing",
        "never": "missing",
        "orders": "stale",
    }
    assert service.verdicts("user.a.b") == {"crm": "missing", "orders": "stale"}
    assert service.verdicts("account.closed") == {"crm": "gets"}
    assert service.verdicts("account.opened") == {}


def test_what_machines_are_told(service: Service) -> None:
    service.declare("printer", "crm")
    service.bind("printer", "#.disabled")
    service.bind("printer", "user.disabled")
    service.queues.publish("user.disabled", b"{}", exchange=service.exchange)
    service.queues.wait_count(f"{service.unique}printer", 1)
    printer, crm, _ = service.explain("user.disabled", "app")["receivers"]
    assert printer.pop("broker").startswith("amqp://guest@127.0.0.1:")
    assert printer.pop("live_binding_keys") == ["#.disabled", "user.*", "user.disabled"]
    assert printer == {
        "name": f"{service.unique}printer",
        "verdict": "gets",
        "differs": True,
        "exchange": service.exchange,
        "binding_keys": ["user.*"],
        "moving": False,
        "queue": queue(f"{service.unique}printer", messages=1),
        "handler": "app.print_badge",
        "timeout": 30,
        "max_retries": 3,
        "retry_on": ["ConnectionError"],
        "retry_delays": [10.0, 20.0, 40.0],
        "dead_letters": queue(f"{service.unique}printer:dead"),
    }
    assert (crm["differs"], crm["dead_letters"], crm["retry_delays"]) == (False, None, [])


def queue(name: str, **changed: Any) -> dict[str, Any]:
    return {"name": name, "exists": True, "messages": 0, "consumers": 0, "problem": None, **changed}


def test_people_are_told_the_whole_way(service: Service) -> None:
    service.declare("printer", "crm", "orders")
    service.bind("orders", "user.disabled")
    done = service.run("user.disabled", "app")
    assert (done.returncode, done.stderr) == (0, "")
    u = service.unique
    assert done.stdout.startswith("user.disabled comes to 3 queues; 2 of the receivers are not as the code wants it\n")
    blocks = {block.split()[0]: block for block in done.stdout.split("\n\n")[1:]}
    assert blocks[f"{u}printer"] == (
        f"{u}printer gets it\n"
        f"  exchange {u}events -> user.* -> queue {u}printer: 0 events ready, 0 consumers\n"
        "  ! nobody consumes: it waits in the queue until the receiver runs\n"
        "  -> handler app.print_badge, at most 30 s\n"
        "  -> retried at most 3 times when it raises Retry or ConnectionError: after 10 s, 20 s, 40 s (give or "
        "take 10%)\n"
        f"  -> given up: dead letter in queue {u}printer:dead: 0 events ready"
    )
    assert "gone (dead_letter=False)" in blocks[f"{u}crm"]
    assert "MISSING" in blocks[f"{u}never"]
    assert "! there is no such queue: the receiver declares it" in blocks[f"{u}never"]
    assert "! still bound to user.disabled, which the code has not got" in blocks[f"{u}orders"]
    assert service.run("user.disabled", "app", "--exit-code").returncode == 1
    assert service.run("account.closed", "app", "--exit-code").returncode == 0


def test_a_consumer_is_seen_at_once(service: Service) -> None:
    service.declare("printer")
    receiver = Receiver(service.url, exchange=service.exchange)
    receiver.register(Seen(), f"{service.unique}other", ["user.*"])
    service.queues.forget_after(f"{service.unique}other")
    with consuming(receiver):
        wait_until(
            lambda: [each["queue"]["consumers"] for each in service.explain("user.a", "app")["other_queues"]] == [1],
            what="a queue of another service with a consumer",
        )


def test_queues_of_others_are_shown_also_without_modules(service: Service) -> None:
    name = service.queues.forget_after(f"{service.unique}billing")
    service.queues.channel.queue_declare(name, durable=True)
    service.queues.channel.queue_bind(name, service.exchange, "user.#")
    watching = service.queues.declare_watch("user.*", exchange=service.exchange)
    found = service.explain("user.disabled")
    assert found["receivers"] == []
    assert found["notes"] == ["no modules are given: only what is bound at the broker is shown"]
    others = {each["queue"]["name"]: each for each in found["other_queues"]}
    assert {name: each["temporary"] for name, each in others.items()} == {name: False, watching: True}
    assert others[name]["binding_keys"] == ["user.#"]
    assert others[name]["exchange"] == service.exchange
    assert f"queue {name} gets it: of no receiver in these modules" in service.run("user.disabled", "app").stdout


def test_without_the_plugin_the_code_and_the_queues_are_all_there_is(service: Service) -> None:
    service.declare("printer")
    service.unbind("printer", "user.*")  # that cannot be seen
    found = service.explain("user.disabled", "app", management=NOBODY)
    verdicts = {each["name"].removeprefix(service.unique): each["verdict"] for each in found["receivers"]}
    assert verdicts == {"printer": "by_code", "crm": "missing", "never": "missing"}
    assert [each["live_binding_keys"] for each in found["receivers"]] == [None] * 3
    assert "could not be listed" in found["notes"][0]
    done = service.run("user.disabled", "app", management=NOBODY)
    assert "gets it if its queue is bound as the code wants it" in done.stdout
    assert "told by the code alone" in done.stderr
    alone = service.run("user.disabled", management=NOBODY)
    assert (alone.returncode, "could not be listed" in alone.stderr) == (1, True)


@pytest.mark.parametrize("management", [None, NOBODY], ids=["with the plugin", "without"])
def test_a_slip_of_the_pen_is_noticed(service: Service, management: str | None) -> None:
    service.declare("printer", "crm", "orders")
    watching = service.queues.declare_watch("#", exchange=service.exchange)
    found = service.explain("accuont.closed", "app", management=management)
    assert found["suggestions"] == ["account.closed"]
    assert [each["queue"]["name"] for each in found["other_queues"]] == ([watching] if management is None else [])
    out = service.run("usr.disabled", "app", management=management).stdout
    assert "did you mean user.disabled?" in out
    assert service.explain("user.disbaled", "app", management=management)["suggestions"] == []  # somebody gets that


def test_an_exchange_that_hands_on_is_said(service: Service) -> None:
    audit = service.queues.forget_exchange_after(f"{service.unique}audit")
    service.queues.channel.exchange_declare(audit, "topic", durable=True)
    service.queues.channel.exchange_bind(audit, service.exchange, "user.*")
    [found] = service.explain("user.disabled")["other_exchanges"]
    assert (found["exchange"], found["binding_key"], found["to"]) == (service.exchange, "user.*", audit)
    assert f"exchange {audit} gets it too" in service.run("user.disabled").stdout


def test_each_broker_and_each_exchange_is_looked_at(service: Service, unique: str) -> None:
    """One receiver is at a broker that is away, one offline, one at another exchange."""
    (service.folder / "app.py").write_text(f"""
from domain_events import Receiver
here, away, off = (
    Receiver(url, exchange="{service.exchange}") for url in ("{service.url}", "amqp://guest:secret@127.0.0.1:1", None)
)
other = Receiver(exchange="{unique}exchange")
for name, receiver in {{"printer": here, "away": away, "off": off, "orders": other}}.items():
    receiver.register(print, "{unique}" + name, ["user.*"])
""")
    service.queues.forget_exchange_after(f"{unique}exchange")
    receiver = Receiver(service.url, exchange=f"{unique}exchange")
    receiver.register(print, f"{unique}orders", ["user.*"])
    receiver.declare()
    service.declare("printer")
    done = service.run("user.x", "app", "--json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert {each["name"].removeprefix(unique): (each["verdict"], each["exchange"]) for each in found["receivers"]} == {
        "printer": ("gets", service.exchange),
        "orders": ("gets", f"{unique}exchange"),
        "away": ("by_code", service.exchange),
    }
    assert any(f"offline, and so without any event: {unique}off" in note for note in found["notes"])
    assert any("127.0.0.1:1/%2F could not be asked for its queues" in note for note in found["notes"])
    assert "secret" not in done.stdout + done.stderr
    done = service.run("user.x", "app", "--json", "--exchange", f"{unique}exchange")
    assert [each["name"] for each in json.loads(done.stdout)["receivers"]] == [f"{unique}orders"]


def test_a_plugin_is_not_asked_about_another_broker(service: Service, unique: str) -> None:
    """It would say that nothing is bound, which is not so."""
    (service.folder / "app.py").write_text(f"""
from domain_events import Receiver
for name, url in {{"printer": "{service.url}", "far": "amqp://guest:guest@127.0.0.2:1"}}.items():
    receiver = Receiver(url, exchange="{service.exchange}")
    receiver.register(print, "{unique}" + name, ["user.*"])
    globals()[name] = receiver
""")
    service.declare("printer")
    done = service.run("user.x", "app", "--json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    verdicts = {each["name"].removeprefix(unique): each["verdict"] for each in found["receivers"]}
    assert verdicts == {"printer": "gets", "far": "by_code"}
    assert any("no management plugin answers at http://127.0.0.2:15672" in note for note in found["notes"])


def test_a_queue_that_is_being_made_anew_is_said(service: Service) -> None:
    service.declare("printer")
    transit = f"{service.unique}printer:retry:moving"
    service.queues.channel.queue_declare(transit, durable=True)
    service.queues.channel.queue_bind(transit, service.exchange, "user.*")
    service.unbind("printer", "user.*")
    try:
        [printer] = [each for each in service.explain("user.x", "app")["receivers"] if each["name"].endswith("printer")]
        assert (printer["verdict"], printer["moving"]) == ("gets", True)
        assert "being made anew" in service.run("user.x", "app").stdout
    finally:
        service.queues.delete(transit)


@pytest.mark.parametrize(
    "args", [("user.*",), ("",), ("a..b",), ("a", "--exchange", "amq.topic"), ("a", "nothing_there")]
)
def test_usage_is_2(args: Sequence[str], tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, *args], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")


def test_what_matches_is_what_the_broker_delivers(broker: Broker, unique: str) -> None:
    """Every key of up to three of these words, and a few others, against each other."""
    # RabbitMQ 4.3 refuses binding keys with more than two `#`.
    bindings = ["", *(key for key in _keys("a", "", "*", "#") if key.count("#") < 3), "a#", "#a", "*a.b", "a.**"]
    routings = ["", *_keys("a", "", "*", "#", "b"), "a#", "**", "##"]
    with pika.BlockingConnection(pika.URLParameters(broker.urls[0])) as connection:
        channel = connection.channel()
        exchange = f"{unique}topics"
        channel.exchange_declare(exchange, "topic", auto_delete=True)
        queues = {key: channel.queue_declare("", exclusive=True).method.queue for key in bindings}
        for key, queue in queues.items():
            channel.queue_bind(queue, exchange, key)
        channel.confirm_delivery()
        for routing in routings:
            channel.basic_publish(exchange, routing, routing.encode())
        for key, queue in queues.items():
            got = []
            while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
                got.append(body.decode())
            assert got == [routing for routing in routings if matches(key, routing)], key


def _keys(*words: str) -> list[str]:
    found = (".".join(each) for n in (1, 2, 3) for each in itertools.product(words, repeat=n))
    return [key for key in dict.fromkeys(found) if key]
