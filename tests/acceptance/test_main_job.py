"""From a sender to a handler in a forked child, with the real command and a real broker."""

from __future__ import annotations

import os
import signal

from tests.acceptance.service import Service, connections, running
from tests.proc import title
from tests.waiting import wait_until


def test_each_receiver_has_direct_children_of_the_master_that_handle_its_events(service: Service) -> None:
    master = service.start_consuming(children=3, TEST_PROCESSES="2")
    children = master.children()
    assert len(children) == 3
    slots = ("other#0", "work#0", "work#1")
    titles = [f"domain-events: receiver {service.prefix}{slot} consuming" for slot in slots]
    # A child says first that it consumes, and changes its title then.
    wait_until(lambda: sorted(map(title, children)) == titles, what=f"{titles}")
    assert "master tests.acceptance.receivers" in title(master.pid)
    assert [connections(pid, service.url) for pid in children] == [1, 1, 1]
    assert connections(master.pid, service.url) == 0

    service.send_many("work", range(40))
    service.send_many("other", range(5))
    assert service.wait_handled(range(40)) == dict.fromkeys(range(40), 1)
    assert service.wait_handled(range(5), "other") == dict.fromkeys(range(5), 1)
    assert {note["pid"] for note in service.notes("end")} <= set(children)

    master.terminate()
    assert master.wait() == 0
    assert master.group() == []


def test_events_sent_while_the_service_is_down_are_handled_when_it_starts(service: Service) -> None:
    first = service.start_consuming()
    first.terminate()
    assert first.wait() == 0
    service.send_many("work", range(20))
    service.start_consuming()
    assert service.wait_handled(range(20)) == dict.fromkeys(range(20), 1)


def test_two_supervisors_share_the_queues(service: Service) -> None:
    first = service.start_consuming()
    second = service.start_consuming()
    service.send_many("work", range(100), do="sleep", seconds=0.01)
    assert service.wait_handled(range(100)) == dict.fromkeys(range(100), 1)
    workers = {note["pid"] for note in service.notes("end")}
    assert workers & set(first.children())
    assert workers & set(second.children())


def test_a_killed_child_loses_nothing_and_the_others_go_on(service: Service) -> None:
    master = service.start_consuming()
    (bystander,) = [pid for pid in master.children() if "other#0" in title(pid)]
    service.send("work", 0, do="die once")
    service.send_many("work", range(1, 50))
    service.send_many("other", range(20))
    handled = service.wait_handled(range(50))
    assert set(handled) == set(range(50))
    service.wait_handled(range(20), "other")
    assert bystander in master.children()
    output = master.wait_output("signal=SIGKILL")
    assert "in_flight=" in output
    master.terminate()
    assert master.wait() == 0
    service.wait_empty()
    assert not service.queues.count(f"{service.prefix}work:dead")


def test_a_child_killed_again_and_again_loses_nothing(service: Service) -> None:
    master = service.start_consuming(
        "--backoff", "0.05:0.2", "--spawn-rate", "100", "--max-event-crashes", "0", TEST_PROCESSES="2", children=3
    )
    # An event that is in hand at two of these kills would rightly be blamed: not the subject here.
    service.send_many("work", range(60), do="sleep", seconds=0.05)
    for _ in range(12):
        seen = len(service.notes("end"))
        victims = [pid for pid in master.children() if "work#" in title(pid) and "consuming" in title(pid)]
        for victim in victims[:1]:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda seen=seen: len(service.notes("end")) > seen or len(service.handled()) == 60)  # type: ignore[misc]
    service.wait_handled(range(60))
    master.terminate()
    assert master.wait() == 0
    service.wait_empty()
    assert not service.queues.count(f"{service.prefix}work:dead")


def test_children_of_a_killed_master_finish_what_is_in_hand_and_leave(service: Service) -> None:
    master = service.start_consuming()
    children = master.children()
    service.send("work", 0, do="wait")
    service.send_many("work", range(1, 6))
    service.wait_begun(0)
    master.kill()
    master.wait()
    wait_until(lambda: master.output().count("has lost its master") == 2, what="both know")
    service.go_on()
    wait_until(lambda: not running(children), what="the orphans are gone")
    # What was in hand is done and settled, the others were not begun.
    assert service.handled() == {0: 1}
    service.queues.wait_count(f"{service.prefix}work", 5)


def test_retries_and_dead_letters_under_the_supervisor(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 1, do="retry", times=3, delay=0.2)
    service.send("work", 2, do="retry", times=9, delay=0.2)
    service.send("work", 3, do="fail")
    service.send("work", 4)
    service.wait_handled(range(4, 5))
    service.wait_handled(range(1, 2))
    dead = f"{service.prefix}work:dead"
    service.queues.wait_count(dead, 2)
    assert [note["retries"] for note in service.notes("begin") if note["n"] == 2] == [0, 1, 2, 3]
    reasons = {properties.headers["domain-events-error-type"] for _, properties, _ in service.queues.drain(dead)}
    assert reasons == {"Retry", "ValueError"}
    master.terminate()
    assert master.wait() == 0
    service.wait_empty()


def test_two_masters_may_start_and_stop_in_any_order_with_the_sender(service: Service) -> None:
    # Nobody has declared anything yet: an event that no queue is bound for is legal and nobody's.
    service.send("work", 0)
    master = service.start_consuming()
    service.send("work", 1)
    service.wait_handled(range(1, 2))
    assert set(service.handled()) == {1}
    master.terminate()
    assert master.wait() == 0
