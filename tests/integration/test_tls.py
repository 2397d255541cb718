"""Events over TLS: what works in the clear works encrypted, across forks, losses and new certificates."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from domain_events import BrokerRefused, Receiver, Sender, SendError, SendTimeout, TLSFailed
from domain_events.settings import ConnectionSettings, parse_broker
from tests.brokers import Broker, Queues
from tests.certificates import Authority
from tests.consuming import Seen, consuming
from tests.processes import ROOT, Processes
from tests.relay import relay
from tests.waiting import wait_until

MANY = 3_000
LARGE = 10 * 1024 * 1024  # bytes


@pytest.fixture
def queues(tls_broker: Broker, unique: str) -> Iterator[Queues]:
    """Of the broker that speaks TLS."""
    queues = Queues(tls_broker.url, unique)
    yield queues
    queues.close()


@pytest.fixture
def name(queues: Queues, unique: str) -> str:
    return queues.forget_after(f"{unique}tls")


def secured(broker: Broker, *parameters: str) -> str:
    return f"{broker.tls_url}?{'&'.join([f'cacertfile={broker.cafile}', *parameters])}"


def identified(broker: Broker) -> str:
    return secured(broker, f"certfile={broker.certfile}", f"keyfile={broker.keyfile}")


def receiver_of(url: ConnectionSettings, name: str, seen: Seen, **options: object) -> Receiver:
    receiver = Receiver(url)
    receiver.register(seen, name, [f"{name}.#"], **options)  # type: ignore[arg-type]
    return receiver


def test_our_certificate_can_be_the_login(tls_broker: Broker, name: str, tmp_path: Path) -> None:
    if not tls_broker.owned and "EXTERNAL" not in offered_mechanisms(tls_broker):
        pytest.skip("this broker offers no login by a certificate")
    url = identified(tls_broker).replace("guest:guest@", "") + "&auth_mechanism=external"
    seen = Seen()
    receiver = receiver_of(url, name, seen)
    receiver.declare()
    with Sender(url) as sender, consuming(receiver):
        sender.send(f"{name}.a", 1, mandatory=True)
        seen.wait(1)


def test_events_are_joined_into_few_writes(tls_broker: Broker, unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    send = ssl.SSLSocket.send

    def counted(self: ssl.SSLSocket, data: bytes) -> int:
        writes.append(len(data))
        return send(self, data)

    monkeypatch.setattr(ssl.SSLSocket, "send", counted)
    with Sender(secured(tls_broker)) as sender:
        sender.send(f"{unique}.a", 0)
        writes.clear()
        sender.send(f"{unique}.a", 1)
        assert len(writes) == 1
        writes.clear()
        sender.send_many([(f"{unique}.a", number) for number in range(MANY)])
        assert len(writes) <= MANY / 10


def test_a_broker_that_offers_no_login_by_certificate_refuses_it(tls_broker: Broker, name: str) -> None:
    # In the clear there is no certificate, so it is not offered there; no URL says that, but a proxy may end TLS.
    node = parse_broker(tls_broker.urls[0], "test")
    receiver = receiver_of([replace(node, mechanism="external")], name, Seen())
    with pytest.raises(BrokerRefused, match="offers no login by EXTERNAL"):
        receiver.declare()


def offered_mechanisms(broker: Broker) -> str:
    """As the broker greets whoever connects over TLS (AMQP 0-9-1, connection.start)."""
    context = ssl.create_default_context(cafile=broker.cafile)
    port = urlsplit(broker.tls_url).port
    with (
        socket.create_connection(("localhost", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"AMQP\x00\x00\x09\x01")
        return secured.recv(8192).decode("latin-1")


@pytest.mark.parametrize("how", ["by name", "by address", "with a certificate of ours", "with the CAs of the machine"])
def test_events_are_sent_and_handled_over_tls(
    tls_broker: Broker, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {
        "by name": secured(tls_broker),
        "by address": secured(tls_broker).replace("localhost", "127.0.0.1"),
        "with a certificate of ours": identified(tls_broker),
        "with the CAs of the machine": tls_broker.tls_url,
    }[how]
    if how == "with the CAs of the machine":
        monkeypatch.setenv("SSL_CERT_FILE", tls_broker.cafile)
    seen = Seen()
    receiver = receiver_of(url, name, seen)
    receiver.declare()
    with Sender(url) as sender, consuming(receiver):
        sender.send(f"{name}.a", 1, mandatory=True)
        assert seen.wait(1)[0].data == 1


def test_large_events_go_both_ways_over_tls(tls_broker: Broker, name: str) -> None:
    # Much more than a TLS record, than pika reads at a time and than the sockets buffer.
    seen = Seen()
    receiver = receiver_of(secured(tls_broker), name, seen)
    receiver.declare()
    texts = [chr(97 + n) * LARGE for n in range(3)]
    with Sender(secured(tls_broker)) as sender:
        sender.send_many([(f"{name}.large", text) for text in texts], timeout=60.0)
    with consuming(receiver):
        assert [event.data == text for event, text in zip(seen.wait(3, 60.0), texts, strict=True)] == [True] * 3


def test_many_small_events_go_both_ways_over_tls(tls_broker: Broker, name: str) -> None:
    seen = Seen()
    receiver = receiver_of(secured(tls_broker), name, seen)
    receiver.declare()
    with Sender(secured(tls_broker)) as sender, consuming(receiver):
        sender.send_many([(f"{name}.small", n) for n in range(MANY)], timeout=60.0)
        seen.wait(MANY, 60.0)
    assert seen.data == list(range(MANY))


def test_a_forked_child_leaves_the_tls_connection_of_its_parent_alone(tls_broker: Broker, name: str) -> None:
    seen = Seen()
    with relay(secured(tls_broker)) as line, Sender(line.url) as sender:
        receiver = receiver_of(line.url, name, seen)
        receiver.declare()
        sender.send(f"{name}.parent", 1)
        opened = len(line.links)
        for n in (2, 3):
            if not (child := os.fork()):
                os._exit(0 if n == 3 or sender.send(f"{name}.child", n) else 1)
            assert os.waitpid(child, 0)[1] == 0
            sender.send(f"{name}.parent", n + 10)
        # The child that has sent has one of its own; a goodbye in the parent's would have cost the parent another.
        assert len(line.links) == opened + 1
        with consuming(receiver):
            assert sorted(event.data for event in seen.wait(4)) == [1, 2, 12, 13]


def test_a_tls_connection_that_is_cut_resets_or_falls_silent_comes_back(tls_broker: Broker, name: str) -> None:
    seen = Seen()
    with relay(secured(tls_broker, "heartbeat=1")) as line, Sender(line.url) as sender:
        receiver = receiver_of(line.url, name, seen)
        receiver.declare()
        with consuming(receiver):
            for n, fault in enumerate((None, "cut", "reset", "hold")):
                for link in list(line.links):
                    if fault == "hold":
                        link.hold(up=True, down=True)
                    elif fault:
                        getattr(link, fault)()
                sender.send(f"{name}.a", n, timeout=20.0)
                wait_until(lambda n=n: n in seen.data, what=f"event {n}")  # type: ignore[misc]


def test_certificates_are_read_again_at_each_connect(
    tls_broker: Broker, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path)
    cafile = tmp_path / "trusted.pem"
    stranger_said = f"not signed by an authority in {cafile}"
    shutil.copy(tls_broker.cafile, cafile)
    seen = Seen()
    with relay(f"{tls_broker.tls_url}?cacertfile={cafile}") as line, Sender(line.url) as sender:
        receiver = receiver_of(line.url, name, seen)
        receiver.declare()
        sender.send(f"{name}.a", 1)
        with consuming(receiver):
            seen.wait(1)
            shutil.copy(stranger.cafile, cafile)
            line.cut()

            def told() -> bool:
                with pytest.raises(SendError) as raised:
                    sender.send(f"{name}.a", 2, timeout=0.5)
                # SendTimeout, when it was on its way before the loss was seen.
                return isinstance(raised.value, TLSFailed | SendTimeout) and stranger_said in str(raised.value)

            wait_until(told, what="the sender's complaint")
            wait_until(lambda: "the broker is away: amqps://" in caplog.text, what="the consumer's complaint")
            cafile.unlink()  # as between two steps of a careless renewal: it has consumed, so it does not give up
            wait_until(lambda: "(cacertfile) cannot be read" in caplog.text, what="the complaint about the file")
            shutil.copy(tls_broker.cafile, cafile)
            sender.send(f"{name}.a", 3)
            wait_until(lambda: 3 in seen.data, what="event 3")


RECEIVERS = """
import os
from domain_events import Receiver, Retry
receiver = Receiver()
@receiver.handles({name!r}, [{key!r}], max_retries=1, processes=2)
def handle(event):
    if not event.retries:
        raise Retry(0.1)
    os.write(1, b"handled %d\\n" % event.data)  # in one piece: there are two children
"""


@pytest.mark.parametrize("way", ["url", "file"])
def test_the_children_of_the_supervisor_consume_over_tls(
    processes: Processes, tls_broker: Broker, queues: Queues, name: str, tmp_path: Path, way: str
) -> None:
    queues.forget_after(name, 100)
    (tmp_path / "secured.py").write_text(RECEIVERS.format(name=name, key=f"{name}.#"))
    file = tmp_path / "broker"
    file.write_text(f"# the broker\n{identified(tls_broker)}\n")
    file.chmod(0o600)
    argument = identified(tls_broker) if way == "url" else f"file://{file}"
    command = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor"), "secured", "--broker", argument]
    supervisor = processes.start(command, env={"PYTHONPATH": str(tmp_path)})
    wait_until(lambda: supervisor.output().count("event=child_consuming") == 2, what="both children consume")
    with Sender(secured(tls_broker)) as sender:
        sender.send_many([(f"{name}.a", n) for n in range(10)])
    wait_until(lambda: supervisor.output().count("handled ") >= 10, what="all events handled")
    supervisor.terminate()
    assert supervisor.wait() == 0
    warnings = [line for line in supervisor.output().splitlines() if "WARNING" in line]
    assert [line for line in warnings if "the master was stopped" not in line] == []  # but the machine may be slow


def test_a_child_without_its_tls_file_waits_for_a_person(
    processes: Processes, tls_broker: Broker, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secured.py").write_text(RECEIVERS.format(name=name, key=f"{name}.#"))
    url = f"{tls_broker.tls_url}?cacertfile={tmp_path}/nowhere.pem"
    command = [sys.executable, str(ROOT / "bin" / "domain-events-supervisor"), "secured", "--broker", url]
    supervisor = processes.start(command, env={"PYTHONPATH": str(tmp_path)})
    output = supervisor.wait_output("code=78")
    assert f"{tmp_path}/nowhere.pem (cacertfile) cannot be read" in output
