"""Every command of the runbook in docs/operating.md, run in the trouble that it is for: a real one."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pika
import pytest

from tests.acceptance.scenes import DEADLINE, NAME, Scene, Step, step
from tests.brokers import Broker, Queues
from tests.documents import BLOCKS, ROOT
from tests.processes import Processes
from tests.waiting import wait_until

DOCUMENT = "docs/operating.md"

pytestmark = pytest.mark.owns_broker  # the queue is called `printer`: on somebody's broker it may be theirs


def runbook() -> dict[str, list[str]]:
    """The commands of each section."""
    lines = (ROOT / DOCUMENT).read_text().splitlines()
    begin = lines.index("## Runbook")
    end = next((n for n, line in enumerate(lines) if n > begin and line.startswith("## ")), len(lines))
    titles = {
        n: line.removeprefix("### ") for n, line in enumerate(lines[:end]) if n > begin and line.startswith("### ")
    }
    found: dict[str, list[str]] = {title: [] for title in titles.values()}
    for block in BLOCKS:
        if block.document == DOCUMENT and block.language == "sh" and begin < block.line < end:
            assert block.not_run is None
            section = titles[max(n for n in titles if n < block.line)]
            found[section] += block.text.splitlines()
    return found


RUNBOOK = runbook()


@pytest.fixture
def scene(processes: Processes, broker: Broker, queues: Queues, tmp_path: Path) -> Iterator[Scene]:
    yield Scene(processes, broker, queues, tmp_path)
    processes.end()  # before the queues go: they would be made again


@pytest.fixture
def own_scene(processes: Processes, own_broker: Broker, own_queues: Queues, tmp_path: Path) -> Iterator[Scene]:
    """With a broker that may be stopped."""
    yield Scene(processes, own_broker, own_queues, tmp_path)
    processes.end()


def is_handled(scene: Scene) -> None:
    """Nothing waits, and nothing is dead."""
    for queue in (NAME, f"{NAME}:dead"):
        scene.queues.wait_count(queue, 0, DEADLINE)


def no_supervisor(scene: Scene) -> list[Step]:
    scene.write("pass", head="import no_such_module")
    scene.start()
    assert scene.master.wait(DEADLINE) == 78
    return [
        step("domain-events status", code=3),
        step("journalctl", "no_such_module"),
        step("domain-events-supervisor", "no_such_module", code=78),
        step("domain-events-supervisor", '"printer"', before=lambda: scene.write("pass")),
    ]


def backoff(scene: Scene) -> list[Step]:
    scene.write("pass", head="@child_started\ndef make_tea():\n    raise RuntimeError('no cup of tea')\n")
    scene.start()
    return [
        step("domain-events status", "printer +backoff", code=1),
        step("journalctl", 'reason="did not boot'),
        step("journalctl", "RuntimeError: no cup of tea"),
        step("domain-events reload", changes=True, before=lambda: scene.write("pass")),
        step("domain-events status", "printer +consuming"),
    ]


def failed(scene: Scene) -> list[Step]:
    scene.queues.channel.exchange_declare("domain-events", "topic", durable=True)
    scene.broker.ctl("add_user", "shop", "a-word")
    scene.broker.ctl("set_permissions", "shop", "^printer", r"^(printer|amq\.default$)", "^printer")
    scene.url = scene.broker.url.replace("guest:guest", "shop:a-word")
    scene.write("pass")
    scene.start()
    return [
        step("domain-events status", "printer +failed", code=1),
        step("journalctl", "'domain-events'"),
        step("rabbitmqctl list_permissions", r"shop\s+\^printer"),
        step("rabbitmqctl set_permissions", changes=True),
        step("domain-events restart", changes=True),
        step("domain-events status", "printer +consuming"),
    ]


def queue_grows(scene: Scene) -> list[Step]:
    scene.write("time.sleep(0.2)", options="prefetch=1")
    scene.consume()
    for n in range(60):
        scene.send(n=n)
    is_seen = threading.Event()
    sending = threading.Thread(target=lambda: [scene.send(n=n) for n in range(600) if not is_seen.wait(0.1)])

    def stop_sending() -> None:
        is_seen.set()
        sending.join(DEADLINE)

    return [
        step("domain-events explain", r"queue printer: \d+ events ready, 1 consumer"),
        step("domain-events status", "printer +consuming"),
        step("domain-events watch", "order.placed", before=sending.start),
        step(
            "domain-events metrics",
            r'domain_events_handler_seconds_count{receiver="printer"} [1-9]',
            before=stop_sending,
        ),
        step("domain-events scale", changes=True),
        step("domain-events explain", "4 consumers"),
    ]


def dead_letters(scene: Scene) -> list[Step]:
    fails = "raise {'type': TypeError, 'key': KeyError}.get(event.data['fails'], ValueError)('no paper')"
    scene.write(fails)
    scene.consume()
    for cause in ("key", "value", "value", "value"):
        scene.event = scene.send(fails=cause)
    scene.queues.wait_count(f"{NAME}:dead", 4, DEADLINE)
    return [
        step("domain-events dead-letters list", "ValueError", "KeyError"),
        step("domain-events dead-letters show", "ValueError: no paper", "in print_badge", '"fails"'),
        step("domain-events reload", changes=True, before=lambda: scene.write("pass")),
        step("domain-events dead-letters replay", "3"),
        step("domain-events dead-letters replay", changes=True),
        step("domain-events dead-letters discard", changes=True),
        step("domain-events dead-letters list"),
    ]


def hang(scene: Scene) -> list[Step]:
    scene.write("time.sleep(3600 if event.data.get('hangs') else 0)")
    scene.consume()
    scene.event = scene.send(hangs=True)

    def repair() -> None:
        scene.write("time.sleep(3600 if event.data.get('hangs') else 0)", options="timeout=0.5")

    return [
        step("domain-events status", re.escape(scene.event.uuid_string)),
        step("kill -USR2"),
        step("journalctl", "in print_badge"),
        step("domain-events reload", changes=True, before=repair),
        step("domain-events dead-letters list", r"ConsumerDied .*timeout"),
    ]


def event_that_kills(scene: Scene) -> list[Step]:
    scene.write("if event.data.get('kills'): os.kill(os.getpid(), signal.SIGSEGV)")
    scene.consume()
    scene.event = scene.send(kills=True)
    return [
        step("journalctl", f"(?s)in_flight={scene.event.uuid_string}.*in_flight={scene.event.uuid_string}"),
        step("domain-events dead-letters list", r"ConsumerDied .*SIGSEGV"),
        step("domain-events dead-letters show", '"kills"', "consumer died 2x", "print_badge"),
        step("domain-events reload", changes=True, before=lambda: scene.write("pass")),
        step("domain-events dead-letters replay", changes=True),
    ]


def broker_blocked(scene: Scene) -> list[Step]:
    scene.write("raise ValueError('no paper')")
    scene.consume()
    scene.send(n=0)
    scene.queues.wait_count(f"{NAME}:dead", 1, DEADLINE)  # whoever has published is blocked
    scene.broker.ctl("set_vm_memory_high_watermark", "0.00001")
    return [
        step("rabbitmq-diagnostics alarms", "(?i)memory alarm|memory.*alarm"),
        step("rabbitmqctl list_connections", "block(ed|ing)"),
        step("rabbitmqctl list_queues", NAME),
        step("domain-events status", "printer +consuming"),
        step("rabbitmqctl set_vm_memory_high_watermark", changes=True),
        step("rabbitmq-diagnostics alarms", "(?i)no alarms"),
    ]


def broker_away(scene: Scene) -> list[Step]:
    scene.write("pass")
    scene.consume()
    scene.broker.kill()
    return [
        step("domain-events status", "printer +starting", code=1),
        step("journalctl", "the broker is away"),
        step("rabbitmq-diagnostics ping", code=None),
        step("rabbitmq-diagnostics ping", before=scene.broker.restart),
        step("domain-events status", "printer +consuming"),
    ]


def arguments_changed(scene: Scene) -> list[Step]:
    scene.queues.channel.queue_declare(NAME, durable=True, arguments={"x-queue-type": "classic"})
    for n in range(3):
        body = b'{"routing_key": "order.placed", "data": {"n": %d}}' % n
        scene.queues.publish(NAME, body, exchange="", properties=pika.BasicProperties(delivery_mode=2))
    scene.write("pass")
    scene.start()
    return [
        step("journalctl", "queue 'printer' exists with another"),
        step("domain-events topology plan", "printer", "classic"),
        step("domain-events scale printer=0", changes=True),
        step("domain-events topology apply", changes=True),
        step("domain-events scale printer=1", changes=True),
        step("domain-events status", "printer +consuming"),
    ]


def reload_fails(scene: Scene) -> list[Step]:
    scene.write("pass")
    scene.consume()
    scene.write("pass", head="import no_such_module")
    return [
        step("domain-events reload", "no_such_module", code=1, changes=True),
        step("journalctl", "no_such_module"),
        step("domain-events-supervisor", "no_such_module", code=78),
        step("domain-events status", "printer +consuming"),
        step("domain-events-supervisor", '"printer"', before=lambda: scene.write("pass")),
        step("domain-events reload", changes=True),
    ]


def log_dropped(scene: Scene) -> list[Step]:
    said = scene.folder / "said"
    scene.write(f"[logging.getLogger('app').info('again') for _ in range(20000)]; open({str(said)!r}, 'w').close()")
    scene.consume()
    os.kill(scene.master.pid, signal.SIGSTOP)  # nobody writes the log
    scene.send(n=0)
    wait_until(said.exists, DEADLINE, "the handler has logged")
    os.kill(scene.master.pid, signal.SIGCONT)
    return [
        step("journalctl", r"slot=printer#0 pid=\d+ n=[1-9]\d+"),
        step("domain-events metrics", r'domain_events_log_records_dropped_total{slot="printer#0"} [1-9]'),
        step("df -h"),
        step("journalctl", r"\d{4,}  INFO \d+ app|\d{4,}\s+INFO \d+ app"),
    ]


SCENES: Mapping[str, tuple[Callable[[Scene], list[Step]], Callable[[Scene], object]]] = {
    "No supervisor answers": (no_supervisor, Scene.consume),
    "A receiver is in back-off": (backoff, is_handled),
    "A queue grows": (queue_grows, is_handled),
    "Dead letters grow": (dead_letters, is_handled),
    "A handler hangs": (hang, lambda scene: scene.queues.wait_count(NAME, 0, DEADLINE)),
    "An event kills its consumer": (event_that_kills, is_handled),
    "Arguments of a queue changed": (arguments_changed, is_handled),
    "A reload fails": (reload_fails, is_handled),
    "Log records are dropped": (log_dropped, is_handled),
}
"""How the trouble begins, with what each command shows then; and what must be true afterwards."""

SCENES_OF_A_BROKER: Mapping[str, Callable[[Scene], list[Step]]] = {
    "A receiver has failed": failed,
    "The broker is blocked": broker_blocked,
    "The broker is away": broker_away,
}


def test_each_section_of_the_runbook_has_a_scene() -> None:
    assert set(RUNBOOK) == {*SCENES, *SCENES_OF_A_BROKER}


@pytest.mark.parametrize("title", SCENES)
def test_the_commands_of_the_runbook_lead_out_of_the_trouble(title: str, scene: Scene) -> None:
    begin, is_over = SCENES[title]
    scene.play(RUNBOOK[title], begin(scene))
    is_over(scene)


@pytest.mark.parametrize("title", SCENES_OF_A_BROKER)
def test_the_commands_of_the_runbook_lead_out_of_a_trouble_of_the_broker(title: str, own_scene: Scene) -> None:
    own_scene.play(RUNBOOK[title], SCENES_OF_A_BROKER[title](own_scene))
