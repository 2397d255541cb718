"""The numbers of a supervisor add up with what became of the events, whatever happens to its processes."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domain_events.supervisor.control_client import MasterUnreachable, ask
from domain_events.supervisor.protocol import Done, Metrics
from tests.acceptance.deploying import Connected, Deployed
from tests.acceptance.trouble import DEADLINE
from tests.waiting import wait_until

MOODY = """
import threading
from domain_events import DeadLetter, send_domain_event


def handler(name):
    def handle(event):
        data = event.data
        if "hold" in data:
            while os.path.exists(data["hold"]):
                time.sleep(0.01)
        if "die" in data and not os.path.exists(data["die"]):
            open(data["die"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if "send" in data:
            send_domain_event(PREFIX + data["send"], {"n": data["n"]})
        if "fork" in data:
            pid = os.fork()
            if pid == 0:
                send_domain_event(PREFIX + data["fork"], {"n": data["n"]})
                os._exit(0)
            os.waitpid(pid, 0)
        if "raise" in data:
            raise type(data["raise"], (Exception,), {})("as asked")
        if data.get("retry", 0) > event.retries:
            raise Retry(0.2)
        if data.get("give_up"):
            raise DeadLetter("as asked")
        note(name, event)
    return handle


"""


def numbers(service: Deployed) -> dict[str, Any]:
    """What the master tells, by receiver without the prefix of the test."""
    reply = ask(str(service.control), Metrics(), DEADLINE)
    assert isinstance(reply, Done)
    prefix = service.env.get("TEST_PREFIX", "")
    receivers: Any = reply.data["receivers"]
    return {receiver["name"].removeprefix(prefix): receiver for receiver in receivers}


def wait_numbers(service: Deployed, name: str, **wanted: object) -> dict[str, Any]:
    """The receiver's, once they are these."""

    def found() -> bool:
        receiver = numbers(service)[name]
        return {key: receiver[key] for key in wanted} == wanted

    try:
        wait_until(found, DEADLINE, f"{name}: {wanted}", pause=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}; now: {numbers(service)[name]}") from None
    return dict(numbers(service)[name])


def wait_balanced(service: Connected, *, dead: int = 0, died: int = 0) -> dict[str, Any]:
    """The numbers of `work` as soon as they add up with the ledger: duplicates may be on their way until then.

    `dead`: so many dead letters at least; `died`: events that were in hand when a process was killed.
    """

    def found() -> dict[str, Any]:
        work = numbers(service)["work"]
        ended = work["handled"] + sum(work["failed"].values())
        is_balanced = (
            not work["in_flight"]
            and work["handled"] == sum(service.handled("work").values())
            and work["delivered"] == ended + died
            and work["dead_lettered"] >= dead
        )
        return work if is_balanced else {}

    try:
        return wait_until(found, DEADLINE, "balanced numbers", pause=0.1)
    except AssertionError as error:
        handled = sum(service.handled("work").values())
        raise AssertionError(f"{error}; in the ledger: {handled}; now: {numbers(service)['work']}") from None


def restarts(service: Deployed, name: str = "work") -> dict[str, int]:
    """Those that there were, by cause."""
    return {cause: n for cause, n in numbers(service)[name]["restarts"].items() if n}


def slot_pid(service: Deployed, slot: str) -> int:
    [pid] = [pid for pid, name in service.running().items() if name == service.env.get("TEST_PREFIX", "") + slot]
    return pid


@contextmanager
def watched(service: Deployed) -> Iterator[list[dict[str, Any]]]:
    """Scraped without a pause meanwhile: nothing that is counted may ever go down."""
    seen: list[dict[str, Any]] = []
    is_over = threading.Event()
    problems: list[str] = []

    def look() -> None:
        while not is_over.is_set():
            with suppress(MasterUnreachable):
                seen.append({name: counts(receiver) for name, receiver in numbers(service).items()})
            for name, before in (seen[-2] if len(seen) > 1 else {}).items():
                now = seen[-1].get(name, {})
                problems.extend(
                    f"{name} {key}: {n} -> {now.get(key)}" for key, n in before.items() if now.get(key, -1) < n
                )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join(DEADLINE)
    assert problems == []
    assert len(seen) > 10, "it was looked at"


def counts(receiver: dict[str, Any]) -> dict[str, float]:
    """All that must only grow."""
    flat = {key: receiver[key] for key in ("delivered", "handled", "retried", "dead_lettered", "sent", "send_failed")}
    flat |= {f"failed {name}": n for name, n in receiver["failed"].items()}
    flat |= {f"restarts {cause}": n for cause, n in receiver["restarts"].items()}
    for histogram in ("seconds", "lateness"):
        flat |= {f"{histogram} {bucket}": n for bucket, n in enumerate(receiver[histogram]["counts"])}
        flat[f"{histogram} sum"] = receiver[histogram]["sum"]
    return flat


@pytest.mark.parametrize("options", ["processes=2", "threads=4"])
def test_what_is_counted_is_what_became_of_the_events(connected: Connected, options: str) -> None:
    connected.clean("work", "other")
    connected.app.write("1", f"{MOODY}receive('work', max_retries=2, {options})\nreceive('other', dead_letter=False)\n")
    connected.start(children=3 if "processes" in options else 2)
    connected.send("work.asked", *range(20))
    connected.send("work.asked", *range(20, 25), retry=1)
    connected.send("work.asked", *range(30, 34), **{"raise": "PaymentRefused"})
    connected.send("work.asked", *range(34, 36), **{"raise": "OutOfPaper"})
    connected.send("work.asked", 36, give_up=True)
    connected.send("work.asked", *range(40, 43), send="other.from.work")
    connected.send("work.asked", 43, fork="other.from.work")
    connected.send("other.asked", 50, **{"raise": "Lost"})
    connected.queues.publish(f"{connected.prefix}work.asked", b"no event")
    wait_numbers(connected, "other", handled=4, dead_lettered=1, dropped=1, failed={"Lost": 1})
    work = wait_numbers(connected, "work", handled=29, retried=5, dead_lettered=8, delivered=41)
    assert work["failed"] == {
        "PaymentRefused": 4, "OutOfPaper": 2, "DeadLetter": 1, "Retry": 5, "MalformedEvent": 1,
    }  # fmt: skip
    assert (work["sent"], work["send_failed"]) == (3, 0), "what a process that a handler forks sends is not counted"
    assert (work["dropped"], work["in_flight"], work["oldest_in_flight"]) == (0, 0, 0.0)
    assert sum(work["lateness"]["counts"]) == work["delivered"]
    # The malformed one has had no handler.
    assert sum(work["seconds"]["counts"]) == work["handled"] + sum(work["failed"].values()) - 1
    assert sum(work["lateness"]["counts"][:5]) <= work["delivered"] - 5, "a retry comes after 0.2 s"
    assert restarts(connected) == restarts(connected, "other") == {}
    # The ledger: sent = handled + queued + dead, and here nothing is queued.
    assert sum(connected.handled("work").values()) == work["handled"]
    connected.queues.wait_count(f"{connected.prefix}work:dead", work["dead_lettered"])
    connected.queues.wait_count(f"{connected.prefix}work", 0)
    assert connected.stop() == 0


def test_the_numbers_survive_kills_reloads_and_scaling(connected: Connected) -> None:
    connected.clean("work")
    code = f"{MOODY}receive('work', max_retries=2, processes=2)\n"
    connected.app.write("1", code)
    master = connected.start(children=2)
    work = f"{connected.prefix}work"
    sent = 0

    def send(n: int) -> None:
        nonlocal sent
        connected.send("work.asked", *range(sent, sent + n), retry=1)
        connected.send("work.asked", -1 - sent, **{"raise": "Refused"})
        sent += n

    with watched(connected):
        send(20)
        wait_numbers(connected, "work", handled=sent, dead_lettered=1, in_flight=0)
        # Both at once: what the broker takes back from the first must not be in the second one's hand.
        for pid in [slot_pid(connected, slot) for slot in ("work#0", "work#1")]:
            os.kill(pid, signal.SIGKILL)
        master.wait_lines("child_exit", 2)
        send(20)
        connected.wait_running(f"{work}#0", f"{work}#1")
        connected.app.write("2", code)
        connected.reload()
        send(20)
        assert connected.operate("scale", f"{work}=1")[0] == 0
        assert connected.operate("restart", work)[0] == 0
        send(20)
        assert connected.operate("scale", f"{work}=0")[0] == 0
        wait_numbers(connected, "work", processes=[])
        send(20)
        assert connected.operate("scale", f"{work}=3")[0] == 0
        wait_until(lambda: set(range(sent)) <= set(connected.handled("work")), DEADLINE, "all handled", pause=0.1)
        found = wait_balanced(connected, dead=5)
    # What the broker had no ack for, when the two were killed, was handled once more.
    assert set(connected.handled("work")) == set(range(sent))
    assert found["handled"] >= sent
    assert set(found["failed"]) == {"Retry", "Refused"}
    assert found["failed"]["Retry"] == found["retried"] >= sent
    assert found["failed"]["Refused"] == found["dead_lettered"] >= 5
    connected.queues.wait_count(f"{work}:dead", found["dead_lettered"])
    assert restarts(connected) == {"SIGKILL": 2, "reload": 2, "restart": 1}
    assert len(found["processes"]) == 3
    assert connected.stop() == 0


def test_a_kill_in_the_middle_of_handlers_loses_no_number(connected: Connected) -> None:
    connected.clean("work")
    gate = connected.app.folder / "hold"
    gate.touch()
    connected.app.write("1", f"{MOODY}receive('work', threads=4)\n")
    connected.start(children=1)
    with watched(connected):
        connected.send("work.asked", *range(3))
        connected.wait_handled("work", range(3))
        connected.send("work.asked", 3, 4, 5, hold=str(gate))
        work = wait_numbers(connected, "work", in_flight=3, handled=3, delivered=6)
        wait_until(lambda: numbers(connected)["work"]["oldest_in_flight"] > work["oldest_in_flight"] > 0, DEADLINE)
        pid = slot_pid(connected, "work#0")
        os.kill(pid, signal.SIGKILL)
        connected.master.wait_lines("child_exit", 1, signal="SIGKILL")
        gate.unlink()
        connected.wait_handled("work", range(6))
        work = wait_numbers(connected, "work", in_flight=0, handled=6, delivered=9)
    assert restarts(connected) == {"SIGKILL": 1}
    assert sum(work["seconds"]["counts"]) == 6, "it is not known how long those would have taken"
    assert connected.stop() == 0


def test_children_that_die_all_the_time_are_scraped_all_the_time(connected: Connected) -> None:
    connected.clean("work")
    connected.app.write("1", f"{MOODY}receive('work', processes=2)\n")
    connected.start("--spawn-rate", "100", children=2)
    died = 10
    with watched(connected):
        for n in range(died):
            connected.send("work.asked", n, die=str(connected.app.folder / f"died{n}"))
            connected.send("work.asked", *range(100 + 10 * n, 110 + 10 * n))
        wanted = {*range(died), *range(100, 100 + 10 * died)}
        wait_until(lambda: wanted <= set(connected.handled("work")), DEADLINE, "all handled", pause=0.1)
        # Whoever was in hand with an event that kills comes again: the ledger counts what the handler has done.
        wait_balanced(connected, died=died)
    assert restarts(connected) == {"SIGKILL": died}
    assert connected.stop() == 0


def test_an_event_that_kills_has_the_type_of_the_death_and_of_forty_types_most_have_a_name(
    connected: Connected,
) -> None:
    connected.clean("work")
    connected.app.write(
        "1",
        f"{MOODY}def kill(event):\n    os.kill(os.getpid(), signal.SIGSEGV)\n\n\n"
        "receiver.register(kill, PREFIX + 'killed', [PREFIX + 'killed.#'])\nreceive('work')\n",
    )
    connected.clean("killed")
    connected.start(children=2)
    connected.send("killed.asked", 1)
    wait_numbers(connected, "killed", failed={"ConsumerDied": 1}, dead_lettered=1, delivered=2, handled=0)
    assert restarts(connected, "killed") == {"SIGSEGV": 2}
    for n in range(40):
        connected.send("work.asked", n, **{"raise": f"Error{n}" if n % 2 else f"Error{n}\n\u202e" + "x" * n})
    found = wait_numbers(connected, "work", dead_lettered=40)
    assert found["failed"] == {**{f"Error{n}": 1 for n in range(1, 40, 2)}, "other": 20}
    for n in range(40, 60):
        connected.send("work.asked", n, **{"raise": f"Error{n}"})
    found = wait_numbers(connected, "work", dead_lettered=60)
    assert len(found["failed"]) == 25
    assert sum(found["failed"].values()) == 60
    assert connected.stop() == 0


def test_every_way_to_end_has_its_cause(deployed: Deployed) -> None:
    head = "\n\n@child_started\ndef start():\n    if os.path.exists('fail'):\n        raise RuntimeError('no tea')\n"
    deployed.app.write("1", f"{head}\n\nreceive('one')\n")
    master = deployed.start("--max-age", "3600", children=1)
    os.kill(slot_pid(deployed, "one#0"), signal.SIGTERM)  # not by its master: an exit that nobody has asked for
    master.wait_lines("child_exit", 1)
    deployed.wait_running("one#0")
    fail = deployed.app.folder / "fail"
    fail.touch()
    os.kill(slot_pid(deployed, "one#0"), signal.SIGABRT)
    wait_until(lambda: restarts(deployed, "one").get("boot", 0) >= 2, DEADLINE, "it does not boot")
    receiver = numbers(deployed)["one"]
    assert receiver["state"] in ("backoff", "failed", "starting")
    assert [process["consuming"] for process in receiver["processes"]] == [False]
    fail.unlink()
    deployed.wait_running("one#0")
    found = restarts(deployed, "one")
    assert (found["exit"], found["SIGABRT"]) == (1, 1)
    [status] = deployed.status()["receivers"][0]["processes"]
    assert sum(found.values()) == status["restarts"], "the status counts the same"
    assert deployed.stop() == 0


def test_what_takes_too_long_wears_out_or_is_refused_has_its_cause_too(connected: Connected) -> None:
    connected.clean("slow", "worn", "refused")
    connected.queues.channel.queue_declare(f"{connected.prefix}refused", durable=True)  # a classic one
    connected.app.write("1", "receive('slow', timeout=0.5)\nreceive('worn')\nreceive('refused')\n")
    master = connected.start("--max-events", "10", children=2)
    connected.send("slow.asked", 1, seconds=600)
    wait_numbers(connected, "slow", failed={"ConsumerDied": 1}, delivered=2)
    assert restarts(connected, "slow") == {"timeout": 2}
    connected.send("worn.asked", *range(15))
    connected.wait_handled("worn", range(15))
    wait_until(lambda: restarts(connected, "worn") == {"recycle": 1}, DEADLINE, "it is replaced")
    wait_numbers(connected, "worn", handled=15)
    assert set(restarts(connected, "refused")) == {"configuration"}
    wait_until(lambda: numbers(connected)["refused"]["state"] == "failed", DEADLINE, "between two tries")
    assert master.lines("child_exit", code=78)
    assert connected.stop() == 0


def test_a_reload_that_fails_replaces_nobody(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\n")
    deployed.start(children=1)
    [before] = deployed.wait_running("one#0")
    deployed.app.write("2", "@child_started\ndef fail():\n    raise RuntimeError('no tea')\n\n\nreceive('one')\n")
    deployed.reload_fails()
    assert list(deployed.wait_running("one#0")) == [before]
    wait_until(lambda: len(numbers(deployed)["one"]["processes"]) == 1, DEADLINE)
    assert restarts(deployed, "one") == {"boot": 1}, "of the one on trial"
    deployed.app.write("3", "receive('two')\n")
    deployed.reload()
    found = numbers(deployed)
    assert (found["one"]["state"], found["two"]["state"]) == (None, "consuming")
    assert restarts(deployed, "one") == {"boot": 1}, "who goes for good is not replaced"
    assert restarts(deployed, "two") == {}
    assert deployed.stop() == 0


def test_the_command_shows_what_prometheus_reads(connected: Connected) -> None:
    connected.clean("work")
    connected.app.write("1", f"{MOODY}receive('work')\n")
    connected.start(children=1)
    connected.send("work.asked", 1, 2)
    connected.send("work.asked", 3, **{"raise": 'Evil"} 1\\'})
    wait_numbers(connected, "work", handled=2, dead_lettered=1)
    code, out, err = connected.operate("metrics")
    assert (code, err) == (0, "")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(out)
        for sample in family.samples
    }
    work = f"{connected.prefix}work"
    assert samples["domain_events_handled_total", work] == 2
    assert samples["domain_events_failed_total", 'Evil"} 1\\', work] == 1
    assert samples["domain_events_handler_seconds_count", work] == 3
    assert samples["domain_events_child_consuming", work, f"{work}#0"] == 1
    assert samples["domain_events_receiver_state", "consuming", work] == 1
    assert samples["domain_events_child_restarts_total", "SIGKILL", work] == 0
    memory = samples["domain_events_child_resident_memory_bytes", work, f"{work}#0"]
    assert 2**20 < memory < 2**30
    assert 0 <= samples["domain_events_child_silent_seconds", work, f"{work}#0"] < DEADLINE
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", next(key[1] for key in samples if key[0] == "domain_events_master_info"))
    [began] = [value for key, value in samples.items() if key[0] == "domain_events_master_start_time_seconds"]
    begun = samples["domain_events_child_start_time_seconds", work, f"{work}#0"]
    assert began <= begun
    assert connected.stop() == 0


def test_dropped_log_records_are_counted(deployed: Deployed) -> None:
    deployed.app.write(
        "1",
        "\n\n@child_started\ndef flood():\n    for n in range(50_000):\n"
        "        logging.getLogger('app').info('%d', n)\n\n\n"
        "logging.getLogger('app').setLevel(logging.INFO)\nreceive('one')\n",
    )
    deployed.start(children=1)

    def counted() -> bool:
        reply = ask(str(deployed.control), Metrics(), DEADLINE)
        assert isinstance(reply, Done)
        dropped: Any = reply.data["log_records_dropped"]
        said = sum(line["n"] for line in deployed.master.lines("log_records_dropped", slot="one#0"))
        return bool(dropped.get("one#0", 0) == said > 0)

    wait_until(counted, DEADLINE, "as many as the log says", pause=0.2)
    assert deployed.stop() == 0
