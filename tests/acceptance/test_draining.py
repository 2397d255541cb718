"""SIGTERM: nothing new begins, what is in hand is finished and settled, the rest is back in the queue at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest

from tests.acceptance.service import Service
from tests.waiting import wait_until


@pytest.mark.parametrize("how", ["wait", "hash"])
def test_the_event_in_hand_is_finished_and_the_rest_is_back_in_the_queue_at_once(service: Service, how: str) -> None:
    master = service.start_consuming()
    service.send("work", 0, do=how)
    service.send_many("work", range(1, 11))
    service.wait_begun(0)
    master.terminate()
    # Before the handler is through: the others do not wait for it.
    service.queues.wait_count(f"{service.prefix}work", 10)
    assert not service.handled()
    service.go_on()
    assert master.wait() == 0
    assert service.handled() == {0: 1}
    assert [note["n"] for note in service.notes("begin")] == [0]
    service.queues.wait_count(f"{service.prefix}work", 10)


def test_a_second_sigterm_changes_nothing(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 0, do="sleep", seconds=2)
    service.wait_begun(0)
    children = master.children()
    for _ in range(5):
        master.terminate()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
    assert master.wait() == 0
    assert service.handled() == {0: 1}


def test_a_first_sigint_drains(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 0, do="sleep", seconds=1)
    service.wait_begun(0)
    master.send(signal.SIGINT)
    assert master.wait() == 0
    assert service.handled() == {0: 1}


def test_a_handler_that_outlives_the_grace_is_cut_and_its_event_comes_again(service: Service) -> None:
    master = service.start_consuming("--grace", "1", "--kill-after", "30")
    service.send("work", 0, do="sleep", seconds=600)
    service.wait_begun(0)
    master.terminate()
    assert master.wait() == 80
    assert master.group() == []
    assert not service.handled()
    assert "time.sleep" in master.output() or "receivers.py" in master.output(), "no stack dump of what was cut"
    service.queues.wait_count(f"{service.prefix}work", 1)


def test_a_second_sigint_forces(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 0, do="sleep", seconds=600)
    service.wait_begun(0)
    master.send(signal.SIGINT)
    master.wait_output("event=stop_begin")
    master.send(signal.SIGINT)
    assert master.wait() == 80
    service.queues.wait_count(f"{service.prefix}work", 1)


def test_a_stop_while_the_child_is_connecting_is_clean(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never says a word
        url = f"amqp://guest:guest@127.0.0.1:{deaf.getsockname()[1]}/%2F"
        master = service.start(url=url)
        deaf.settimeout(60)
        connection, _ = deaf.accept()
        with connection:
            wait_until(lambda: len(master.children()) == 2, what="both children run")
            master.terminate()
            assert master.wait() == 0
            assert master.group() == []


def test_a_stop_while_the_broker_is_away_is_clean(service: Service) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        master = service.start(url=f"amqp://guest:guest@127.0.0.1:{nobody.getsockname()[1]}/%2F")
        master.wait_output("the broker is away")
        master.terminate()
        assert master.wait() == 0


def test_a_retry_that_waits_does_not_hold_up_a_stop(service: Service) -> None:
    master = service.start_consuming()
    service.send("work", 0, do="retry", times=1, delay=3.0)
    service.queues.wait_count(f"{service.prefix}work:retry:3000", 1)
    master.terminate()
    assert master.wait() == 0
    service.queues.wait_count(f"{service.prefix}work", 1)
    service.start_consuming()
    service.wait_handled(range(1))
