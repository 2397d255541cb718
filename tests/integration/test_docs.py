"""The examples of the documents run on a real broker, and their receivers handle events."""

from __future__ import annotations

import builtins
import json
import os
import pkgutil
import re
import subprocess
import symtable
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

import pika
import pytest

from domain_events import DomainEvent, NullObserver, Receiver, Sender, SendError, send_domain_event
from domain_events.handling import consume
from domain_events.stopping import Stop
from tests.brokers import Broker, Message, Queues
from tests.commands import operate
from tests.consuming import Seen, consuming
from tests.documents import BLOCKS, ROOT, Block, table
from tests.waiting import wait_until

PLACEHOLDER = re.compile(r"amqp://user:password@host[^\s\"']*")
EXAMPLES = [block for block in BLOCKS if block.language == "python" and block.not_run is None and not block.program]
PROGRAMS = {block.program: block for block in BLOCKS if block.program}


# Examples: each in a process of its own, for their receivers have the same names


@pytest.mark.owns_broker  # their queues have plain names, as `printer`: on somebody's broker these may be theirs
@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_the_example_runs_and_its_receivers_handle_an_event(block: Block, broker: Broker, queues: Queues) -> None:
    done = run_python(__file__, str(block), broker=broker)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    for receiver in outcomes:
        queues.forget_after(receiver)
    assert all(set(seen) == {"handled"} for seen in outcomes.values()), outcomes


def test_an_example_that_is_not_run_says_why() -> None:
    assert [str(block) for block in BLOCKS if block.not_run == ""] == []


def test_the_programs_are_those_that_are_tested_here() -> None:
    assert set(PROGRAMS) == set()


def run_python(*arguments: str, broker: Broker) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMAIN_EVENT_BROKER": broker.url}
    return subprocess.run([sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


def run_example(block: Block) -> dict[str, list[str]]:
    """In the process of the example: what became of the events that were sent to its receivers."""
    if block.document == "docs/django.md":
        set_up_django()
    code = PLACEHOLDER.sub(os.environ["DOMAIN_EVENT_BROKER"], block.text)
    names = types.SimpleNamespace(__name__="example")
    for name in free_names(code):
        assert name in HELPERS, f"{block}: it uses {name!r}, which neither it nor HELPERS defines"
        setattr(names, name, HELPERS[name]())
    exec(compile(code, str(block), "exec"), vars(names))
    found = list(vars(names).values())
    for case in found:
        if isinstance(case, type) and issubclass(case, unittest.TestCase) and case.__module__ == "example":
            result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
            assert result.testsRun
            assert result.wasSuccessful()
    return prove([value for value in found if isinstance(value, Receiver)])


def prove(receivers: list[Receiver]) -> dict[str, list[str]]:
    """Declare them, send what they listen to, and handle at least one event with each."""
    outcomes = Outcomes()
    for receiver in receivers:
        receiver.declare()
        for registration in receiver.registrations:
            outcomes.seen[registration.name] = []
            key = re.sub(r"[*#]", "changed", registration.binding_keys[0])
            send_domain_event(key, {"user_id": 1, "order_id": 1})
        consume(receiver.registrations, stop=outcomes.stop, observer=outcomes, timeout=20.0)
    return outcomes.seen


class Outcomes(NullObserver):
    """Asks for the stop as soon as each receiver has seen an event."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.seen: dict[str, list[str]] = {}

    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
        self._note(receiver, "handled")

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self._note(receiver, "retried")

    def dead_lettered(
        self, receiver: str, event: DomainEvent | None, seconds: float, reason: str, *, dropped: bool
    ) -> None:
        self._note(receiver, reason)

    def _note(self, receiver: str, outcome: str) -> None:
        self.seen[receiver].append(outcome)
        if all(self.seen.values()):
            self.stop.request()


def free_names(code: str) -> set[str]:
    """The globals that the code uses and nobody gives it."""
    module = symtable.symtable(code, "example", "exec")
    used: set[str] = set()
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() or table is module}
    made = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    return used - made - set(dir(builtins))


class Anything:
    """Stands for the user's printer, CRM or model: every call works."""

    pk = 1

    def __getattr__(self, name: str) -> Anything:
        return self

    def __call__(self, *args: object, **kwargs: object) -> Anything:
        return self


def set_up_django() -> None:
    import django
    from django.conf import settings

    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(INSTALLED_APPS=["domain_events.django"], DATABASES=databases)
    django.setup()
    for name in ("shop", "shop.models"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["shop.models"].__dict__.update(Invoice=Anything(), Order=Anything())


def place_order() -> None:
    from django.db import transaction

    from domain_events.django import send_domain_event_on_commit

    with transaction.atomic():
        send_domain_event_on_commit("order.placed", {"order_id": 1})


# What examples use without defining it, and how it is made. A factory each: Django can be imported only where it is.
HELPERS: dict[str, Callable[[], Any]] = {
    "printer": Anything,
    "crm": Anything,
    "mail": Anything,
    "Order": Anything,
    "Invoice": Anything,
    "receiver": Receiver,
    "SendError": lambda: SendError,
    "OperationalError": lambda: pkgutil.resolve_name("django.db:OperationalError"),
    "transaction": lambda: pkgutil.resolve_name("django.db:transaction"),
    "TestCase": lambda: pkgutil.resolve_name("django.test:TestCase"),
    "send_domain_event_on_commit": lambda: pkgutil.resolve_name("domain_events.django:send_domain_event_on_commit"),
    "place_order": lambda: place_order,
}


# Programs


class Printer:
    """A receiver whose handler fails as long as there is no paper."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.has_paper = False
        self.seen = Seen(self._print)
        self.receiver = Receiver(broker.url)
        self.receiver.register(self.seen, name, [f"{name}.key"])
        self.receiver.declare()

    def _print(self, event: DomainEvent) -> None:
        if not self.has_paper:
            raise ValueError("no paper")


def dead_letters_of(printer: Printer, broker: Broker, queues: Queues, name: str) -> list[DomainEvent]:
    sent = Sender(broker.url).send_many([(f"{name}.key", n) for n in range(2)])
    with consuming(printer.receiver):
        queues.wait_count(f"{name}:dead", 2)
    return sent


def test_the_commands_for_dead_letters_do_what_the_page_says(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "printer")
    printer = Printer(broker, name)
    dead_letters_of(printer, broker, queues, name)
    printer.has_paper = True
    lines = [line for block in BLOCKS if block.document == "docs/dead-letters.md" for line in block.text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("domain-events ")]
    assert len(commands) == 5
    with consuming(printer.receiver):
        listed = operate("dead-letters", "list", name, url=broker.url).stdout
        fingerprint = listed.splitlines()[1].split()[0]
        for command in commands:
            arguments = command.replace("printer", name).replace("3f9a01c2", fingerprint).split()[1:]
            if arguments == ["dead-letters", "list"]:  # of this one a broker without the plugin can only say so
                assert operate(*arguments, "--management", "http://127.0.0.1:1", url=broker.url).returncode == 3
                continue
            done = operate(*arguments, url=broker.url)
            assert done.returncode == 0, (command, done.stderr)
        wait_until(lambda: len(printer.seen.events) == 4, what="both handled once more")
        assert printer.seen.retries == [0, 0, 0, 0]
    titles = [line.split() for line in lines if line.startswith("FINGERPRINT")]
    assert titles == [listed.splitlines()[0].split()]


def test_the_table_of_headers_is_what_a_dead_letter_has(broker: Broker, queues: Queues, unique: str) -> None:
    name = queues.forget_after(unique + "printer")
    dead_letters_of(Printer(broker, name), broker, queues, name)
    _, properties, _ = take(queues, f"{name}:dead")
    assert {row[0].strip("`") for row in table("docs/retries.md", "header")} == set(notes(properties))


def notes(properties: pika.BasicProperties) -> dict[str, Any]:
    """The headers without those that the broker adds to each delivery."""
    return {name: value for name, value in (properties.headers or {}).items() if not name.startswith("x-")}


def take(queues: Queues, queue: str) -> Message:
    queues.wait_count(queue, queues.count(queue) or 1)
    message = queues.get(queue)
    assert message is not None
    return message


if __name__ == "__main__":
    [chosen] = [block for block in EXAMPLES if str(block) == sys.argv[1]]
    print(json.dumps(run_example(chosen)))
