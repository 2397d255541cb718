import os, sys, time
import pytest
from tests.waiting import wait_until
import psycopg


def test_queues(broker, queues, unique):
    q = queues.declare_watch(unique + "user.*")
    queues.publish(unique + "user.x", b"{}")
    queues.wait_count(q, 1)
    assert queues.get(q)[2] == b"{}"
    assert queues.get(q) is None
    assert queues.count(unique + "nope") is None
    assert queues.get(unique + "nope") is None
    queues.channel.queue_declare(unique + "r:dead", durable=True, arguments={"x-queue-type": "quorum"})
    queues.publish(unique + "r:dead", b"1", exchange="")
    queues.wait_count(unique + "r:dead", 1)
    assert [m[2] for m in queues.drain(unique + "r:dead")] == [b"1"]
    print(broker.ctl("-q", "list_queues", "name"))


@pytest.mark.owns_broker
def test_left(broker):
    assert "r:dead" not in broker.ctl("-q", "list_queues", "name")


def test_own(own_broker, own_queues):
    q = own_queues.declare_watch("a.*", durable=True)
    own_queues.publish("a.b", b"x")
    own_queues.wait_count(q, 1)
    assert own_broker.pid()
    own_broker.kill()
    assert own_broker.pid() is None
    own_broker.restart()
    own_queues.wait_count(q, 1)
    own_broker.kill()


def test_pg(postgres_url):
    assert psycopg.connect(postgres_url).execute("select 1").fetchone() == (1,)


def test_proc(processes):
    h = processes.start(
        ["sh", "-c", "echo $FOO; sleep 100 & setsid sleep 101 & trap 'exit 3' TERM; echo ready; wait"],
        env={"FOO": "bar"},
    )
    h.wait_output("ready")
    assert "bar" in h.output()
    wait_until(lambda: len(h.children()) == 2)
    h.terminate()
    assert h.wait(5) == 3
    assert len(h.group()) == 2


def test_fail(processes):
    h = processes.start(["sh", "-c", "echo hello"])
    h.wait(5)
    assert 0
