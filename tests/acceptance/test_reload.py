"""New code under the same master, with the real command: nothing is lost or done twice, and nobody waits.

What needs no broker and no module of its own is in tests/unit/test_supervisor_reloading.py.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import proc
from tests.acceptance.deploying import App, Connected, Deployed, order
from tests.acceptance.trouble import DEADLINE
from tests.processes import ROOT
from tests.relay import relay
from tests.waiting import wait_until

TWO = "receive('work', processes=2)\nreceive('other')\n"
SLOTS = ("work#0", "work#1", "other#0")


def slots(connected: Connected, *names: str) -> list[str]:
    return [connected.prefix + name for name in names]


# With events


def test_under_a_steady_stream_of_events_new_code_takes_over_and_each_is_handled_once(connected: Connected) -> None:
    connected.clean("work", "other")
    connected.app.write("1", TWO)
    master = connected.start(children=3)
    before = connected.wait_running(*slots(connected, *SLOTS))
    with connected.stream("work.asked", "other.asked") as sent:
        wait_until(lambda: len(sent) > 50, DEADLINE)
        go_on = connected.send_long("work.asked", 1_000_000)
        connected.app.write("2", TWO)
        master.handle.send(signal.SIGHUP)
        master.wait_lines("child_consuming", 6)
        go_on.touch()
        master.wait_lines("reload_ok", 1)
        seen = len(sent)
        wait_until(lambda: len(sent) > seen + 50, DEADLINE)
        connected.app.write("3", TWO)
        connected.reload()
        after = connected.wait_running(*slots(connected, *SLOTS))
        assert connected.versions() == {"3"}
        seen = len(sent)
        wait_until(lambda: len(sent) > seen + 50, DEADLINE)
    assert connected.wait_handled("work", [*sent, 1_000_000]) == dict.fromkeys([*sent, 1_000_000], 1)
    assert connected.wait_handled("other", sent) == dict.fromkeys(sent, 1)
    assert {note["version"] for note in connected.notes("work")} == {"1", "2", "3"}
    [long] = [note for note in connected.notes("work") if note["n"] == 1_000_000]
    assert (long["version"], long["pid"] in before) == ("1", True), "who has begun an event finishes it"

    assert {proc.parent(pid) for pid in (*after, *connected.loaders)} == {master.pid}
    assert not set(before) & set(after)
    master.wait_lines("reload_ok", 2)
    lines = master.log()
    for slot in slots(connected, *SLOTS):
        pids = [line["pid"] for line in master.lines("child_start", slot=slot)]
        assert len(pids) == 3, "nobody was started but for the reloads"
        for old, new in itertools.pairwise(pids):
            assert order(lines, "child_consuming", pid=new) < order(lines, "child_exit", pid=old, code=0)
    assert connected.stop() == 0
    connected.check_nothing_left("work", "other")


def test_receivers_processes_and_binding_keys_are_those_of_the_new_code(connected: Connected) -> None:
    connected.clean("work", "other", "fresh")
    connected.app.write("1", "receive('work', processes=2)\nreceive('other')\n")
    connected.start(children=3)
    connected.app.write("2", "receive('fresh', 'work.#')\nreceive('work', 'work.#', 'urgent.work')\n")
    connected.reload()
    connected.wait_running(*slots(connected, "work#0", "fresh#0"))
    assert [receiver["name"] for receiver in connected.status()["receivers"]] == slots(connected, "fresh", "work")
    connected.send("urgent.work", 1)
    connected.send("work.asked", 2)
    connected.send("other.asked", 3)
    assert connected.wait_handled("work", [1, 2]) == {1: 1, 2: 1}
    assert connected.wait_handled("fresh", [2]) == {2: 1}
    connected.queues.wait_count(f"{connected.prefix}other", 1)
    connected.app.write("3", TWO)
    connected.reload()
    assert connected.wait_handled("other", [3]) == {3: 1}, "what came while nobody received waited in the queue"
    connected.wait_running(*slots(connected, *SLOTS))
    assert connected.stop() == 0


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("receive('work')\nreceive('other', queue_type='classic')\n", "other#0: configuration (exit 78)"),
        (
            "receive('work', processes=3)\nreceive('other')\n\n@child_started\ndef fail():\n    if 'other' in "
            "open('/proc/self/cmdline').read():\n        raise RuntimeError('no cup of tea')\n",
            "other#0: did not boot (exit 71)",
        ),
    ],
    ids=["topology", "hook"],
)
def test_when_one_receiver_cannot_start_with_the_new_code_all_go_back(
    connected: Connected, broken: str, told: str
) -> None:
    connected.clean("work", "other")
    connected.app.write("1", TWO)
    connected.start(children=3)
    with connected.stream("work.asked", "other.asked") as sent:
        wait_until(lambda: len(sent) > 20, DEADLINE)
        connected.app.write("2", broken)
        reason = connected.reload_fails()
        assert f"{connected.prefix}{told}" in reason
        connected.wait_running(*slots(connected, *SLOTS))
        assert connected.versions() == {"1"}
        seen = len(sent)
        wait_until(lambda: len(sent) > seen + 20, DEADLINE)
    for receiver in ("work", "other"):
        assert connected.wait_handled(receiver, sent) == dict.fromkeys(sent, 1)
    assert connected.receiver(f"{connected.prefix}work")["state"] == "consuming"
    wait_until(lambda: not connected.loaders, what="the loader is gone")
    assert connected.stop() == 0
    connected.check_nothing_left("work", "other")


def test_where_only_one_may_consume_nothing_is_lost_and_counts_go_on(connected: Connected) -> None:
    connected.clean("work")
    connected.app.write("1", "receive('work', single_active=True)\n")
    connected.start(children=1)
    name = f"{connected.prefix}work"
    connected.send("work.asked", 1, 2)
    connected.wait_handled("work", [1, 2])
    with connected.stream("work.asked") as sent:
        connected.app.write("2", "receive('work', single_active=True)\n")
        connected.reload()
        seen = len(sent)
        wait_until(lambda: len(sent) > seen + 10, DEADLINE)
    connected.wait_handled("work", sent)
    total = len(connected.notes("work"))
    assert total == len(sent) + 2
    wait_until(lambda: connected.receiver(name)["processes"][0]["handled"] == total, DEADLINE, f"{total} counted")
    assert connected.receiver(name)["last_exit"]["code"] == 0
    assert connected.stop() == 0


def test_during_an_outage_of_the_broker_new_code_takes_over_too(connected: Connected) -> None:
    connected.clean("work")
    connected.app.write("1", "receive('work')\n")
    with socket.socket() as nobody:
        with relay(connected.url) as line:
            connected.env["DOMAIN_EVENT_BROKER"] = line.url
            master = connected.start(children=1)
            port = urlsplit(line.url).port or 0
            line.close()
            wait_until(lambda: is_refused(port), what="no connection to be had")
            # Whoever does not listen refuses; and nobody else gets the port meanwhile.
            nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            nobody.bind(("127.0.0.1", port))
            line.cut()
            wait_until(lambda: connected.receiver(f"{connected.prefix}work")["state"] == "starting", what="the outage")
            connected.app.write("2", "receive('work')\n")
            connected.reload()
            connected.send("work.asked", 1)
        with relay(connected.url, port):
            assert connected.wait_handled("work", [1]) == {1: 1}
            assert [note["version"] for note in connected.notes("work")] == ["2"]
            assert connected.stop() == 0
    assert {line["code"] for line in master.lines("child_exit")} == {0}


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_stop_while_old_code_still_works_loses_nothing(connected: Connected, number: signal.Signals) -> None:
    connected.clean("work")
    connected.app.write("1", "receive('work')\n")
    connected.start(children=1)
    go_on = connected.send_long("work.asked", 1)
    connected.app.write("2", "receive('work')\n")
    connected.master.handle.send(signal.SIGHUP)
    connected.master.wait_lines("child_consuming", 2)
    connected.send("work.asked", 2)
    assert connected.wait_handled("work", [2]) == {2: 1}
    if number == signal.SIGTERM:
        connected.master.handle.send(number)
        connected.master.wait_lines("stop_begin")
        go_on.touch()
        assert connected.stop(number) == 0
        assert connected.handled("work") == {1: 1, 2: 1}
        connected.check_nothing_left("work")
    else:
        assert connected.stop(number) == 80
        connected.queues.wait_count(f"{connected.prefix}work", 1)


# Broken code, and code of many kinds

BROKEN = {
    "x = (\n": ("SyntaxError: '(' was never closed", "line"),
    "import does_not_exist\n": ("No module named 'does_not_exist'", "line"),
    "raise RuntimeError('no cup of tea')\n": ("RuntimeError: no cup of tea", "line"),
    "sys.exit(3)\n": ("SystemExit: 3", "line"),
    "os._exit(4)\n": ("the loader has ended before it was ready (exit 4)", ""),
    "receive('one')\n": ("a receiver named 'one' is registered already", "line"),
    "receiver = None\n": ("no receiver in app", ""),
}


def test_broken_code_changes_nothing_and_the_reason_is_told(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\nreceive('two')\n")
    master = deployed.start(children=2)
    before = deployed.wait_running("one#0", "two#0")
    for number, (text, (told, place)) in enumerate(BROKEN.items(), 1):
        deployed.app.write("2", f"receive('one')\n{text}")
        reason = deployed.reload_fails()
        [line] = master.wait_lines("reload_failed", number)[number - 1 :]
        for words in (told, "app.py" if place else ""):
            assert words in line["reason"], line
            assert words in reason, reason
        if place:
            lines = (deployed.app.folder / "app.py").read_text().splitlines()
            assert f"line {lines.index(text.splitlines()[0], len(lines) - 1) + 1}" in reason
    assert deployed.running() == before
    wait_until(lambda: not deployed.loaders, what="the loader is gone")
    deployed.app.write("3", "receive('one')\n")
    deployed.reload()
    assert deployed.versions() == {"3"}
    assert deployed.stop() == 0


def test_a_stop_while_the_new_code_hangs_in_its_import_is_a_clean_stop(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\n")
    deployed.start(children=1)
    deployed.app.write("2", "open('importing', 'w').close()\ntime.sleep(600)\n")
    with deployed.operating("reload", "--wait") as waiter:
        wait_until((deployed.app.folder / "importing").exists, DEADLINE)
        assert deployed.status()["master"]["state"] == "reloading"
        assert deployed.stop() == 0
        assert waiter.communicate(timeout=DEADLINE) == ("", "domain-events: the master is stopping\n")
        assert waiter.returncode == 1


def test_all_who_ask_for_new_code_get_the_newest(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\n")
    deployed.start(children=1)
    deployed.app.write("2", "time.sleep(1)\nreceive('one')\n")
    with deployed.operating("reload", "--wait") as first:
        deployed.master.wait_lines("reload_begin")
        deployed.app.write("3", "receive('one')\n")
        with deployed.operating("reload", "--wait") as second, deployed.operating("reload", "--wait") as third:
            for waiter in (first, second, third):
                assert waiter.wait(DEADLINE) == 0
    assert deployed.versions() == {"3"}
    assert deployed.stop() == 0


def test_who_asks_while_the_master_itself_imports_is_heard_later(deployed: Deployed) -> None:
    deployed.app.write("1", "open('importing', 'w').close()\ntime.sleep(1)\nreceive('one')\n")
    deployed.start(children=0)
    wait_until((deployed.app.folder / "importing").exists, DEADLINE)
    deployed.app.write("2", "receive('one')\n")
    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR2):
        deployed.master.handle.send(number)
    deployed.master.wait_lines("reload_ok")
    deployed.wait_running("one#0", "one#1")
    assert deployed.versions() == {"2"}
    assert deployed.stop() == 0


def test_a_symlink_that_points_to_another_release_by_then_is_followed(deployed: Deployed, tmp_path: Path) -> None:
    for version in ("1", "2"):
        App(tmp_path / f"release-{version}", offline=True).write(version, "receive('one')\n")
    current = tmp_path / "current"
    current.symlink_to("release-1")
    # As a shell does it, which knows the directory by the name that it was given.
    deployed.env["PWD"] = str(current)
    deployed.start(children=1, cwd=current)
    assert deployed.versions() == {"1"}
    next_one = tmp_path / "next"
    next_one.symlink_to("release-2")
    next_one.replace(current)
    deployed.reload()
    assert deployed.versions() == {"2"}
    assert deployed.stop() == 0


def test_what_the_application_does_to_environment_and_directory_does_not_reach_its_successor(
    deployed: Deployed,
) -> None:
    text = "assert os.environ.setdefault('SEEN', VERSION) == VERSION\nos.chdir('/')\nreceive('one')\n"
    deployed.app.write("1", text)
    deployed.start(children=1)
    deployed.app.write("2", text)
    deployed.reload()
    assert deployed.versions() == {"2"}
    assert deployed.stop() == 0


def test_watching_reloads_when_a_file_changes_and_survives_broken_ones(deployed: Deployed) -> None:
    def write_shop(text: str) -> None:
        """As a whole, at once: half of it would be a change of its own."""
        new = deployed.app.folder / "shop.new"
        new.write_text(text)
        new.replace(deployed.app.folder / "shop.py")

    write_shop("SALE = False\n")
    deployed.app.write("1", "import shop\nreceive('one')\n")
    master = deployed.start("--watch", children=1)
    deployed.app.write("2", "import shop\nreceive('one')\n")
    master.wait_lines("reload_ok", 1)
    assert deployed.versions() == {"2"}
    write_shop("SALE = \n")
    [line] = master.wait_lines("reload_failed", 1)
    assert "shop.py" in line["reason"]
    assert deployed.versions() == {"2"}
    write_shop("SALE = True  # at last\n")
    master.wait_lines("reload_ok", 2)
    assert ["shop.py" in line["reason"] for line in master.lines("reload_begin")] == [False, True, True]
    assert deployed.stop() == 0


def test_a_django_project_is_reloaded_as_any_other(deployed: Deployed) -> None:
    folder = deployed.app.folder
    shop = App(folder / "shop", offline=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "project.py").write_text("INSTALLED_APPS = ['domain_events.django', 'shop']\n")

    def write(version: str, body: str) -> None:
        shop.write(version, body)
        (folder / "shop" / "app.py").replace(folder / "shop" / "receivers.py")

    write("1", "receive('one')\n")
    deployed.env |= {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{folder}:{ROOT}"}
    deployed.start(children=1, command=[sys.executable, "-m", "django", "domain_events_supervisor"])
    write("2", "receive('one')\nreceive('two')\n")
    deployed.reload()
    deployed.wait_running("one#0", "two#0")
    assert deployed.versions() == {"2"}
    write("3", "receive('one')\n1 / 0\n")
    assert "ZeroDivisionError" in deployed.reload_fails()
    for pid in deployed.running():
        os.kill(pid, signal.SIGKILL)
    deployed.master.wait_lines("child_consuming", 5)
    deployed.wait_running("one#0", "two#0")
    assert deployed.stop() == 0
