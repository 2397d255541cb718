"""Whatever is wrong with TLS is told apart, with the file and the remedy. These need no broker."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from domain_events import BrokerRefused, ConnectionFailed, Receiver, Sender, SendError, TLSFailed
from tests.certificates import Authority, encrypted, self_signed, tcp_server, tls_server
from tests.consuming import consuming
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> tuple[str, str]:
    return authority.issue("app@example.com", common_name="app")


def problem(port: int, *parameters: str, scheme: str = "amqps", host: str = "localhost") -> SendError:
    """Why a receiver cannot declare its topology there."""
    receiver = Receiver(f"{scheme}://app:hunter2@{host}:{port}/?{'&'.join(parameters)}")
    receiver.register(print, f"tls-{threading.get_ident()}-{time.monotonic_ns()}", ["a"])
    with pytest.raises(SendError) as caught:
        receiver.declare(timeout=10.0)
    text = str(caught.value)
    assert text.startswith(f"{scheme}://app@{host}:{port}/%2F")
    assert "hunter2" not in text
    return caught.value


def test_an_unknown_authority_is_named_or_asked_for(authority: Authority, stranger: Authority) -> None:
    with tls_server(*authority.issue("localhost")) as port:
        told = problem(port, f"cacertfile={stranger.cafile}")
        assert isinstance(told, TLSFailed)
        assert f"not signed by an authority in {stranger.cafile} (cacertfile)" in str(told)
        told = problem(port)
        assert isinstance(told, TLSFailed)
        assert "not signed by an authority that this machine trusts: name the file of the right one" in str(told)


def test_a_self_signed_certificate_is_not_trusted_unless_it_is_named(tmp_path: Path) -> None:
    certfile, keyfile = self_signed(tmp_path)
    with tls_server(certfile, keyfile) as port:
        assert "self-signed certificate" in str(problem(port))
        assert "no login within" in str(problem(port, f"cacertfile={certfile}", "connection_timeout=300"))


def test_an_expired_certificate_is_called_expired(authority: Authority) -> None:
    with tls_server(*authority.issue("localhost", days=-1)) as port:
        told = problem(port, f"cacertfile={authority.cafile}")
    assert isinstance(told, TLSFailed)
    assert "has expired: renew it at the broker" in str(told)


def test_a_certificate_for_another_host_names_the_one_that_was_wanted(authority: Authority) -> None:
    with tls_server(*authority.issue("broker.example")) as port:
        told = problem(port, f"cacertfile={authority.cafile}")
        assert isinstance(told, TLSFailed)
        assert "is for another host than localhost" in str(told)
        assert "for another host than 127.0.0.1" in str(
            problem(port, f"cacertfile={authority.cafile}", host="127.0.0.1")
        )
        # With the name that is in it, TLS is content; this server only never says anything about AMQP.
        right = ("server_name_indication=broker.example", "connection_timeout=300")
        assert "no login within" in str(problem(port, f"cacertfile={authority.cafile}", *right))


def test_the_server_is_told_the_name_that_is_wanted(authority: Authority) -> None:
    asked: list[str | None] = []

    def listen(context: ssl.SSLContext) -> None:
        context.sni_callback = lambda _socket, name, _context: asked.append(name)

    with tls_server(*authority.issue("localhost", "127.0.0.1", "a.example"), listen) as port:
        trusting = (f"cacertfile={authority.cafile}", "connection_timeout=300")
        problem(port, *trusting)
        problem(port, *trusting, "server_name_indication=a.example")
        problem(port, *trusting, host="127.0.0.1")
        wait_until(lambda: len(asked) == 3, what="three clients served")
    # RFC 6066, section 3: an address is no name.
    assert asked == ["localhost", "a.example", None]


def test_a_server_that_knows_only_old_versions_is_told_apart(authority: Authority) -> None:
    def age(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.warns(DeprecationWarning, match="TLSv1"), tls_server(*authority.issue("localhost"), age) as port:
        told = problem(port, f"cacertfile={authority.cafile}")
    assert isinstance(told, TLSFailed)
    assert "no version from TLS 1.2 on" in str(told)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_is_missing_or_unknown_is_told_apart(
    authority: Authority, stranger: Authority, version: ssl.TLSVersion
) -> None:
    def demand(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version
        context.load_verify_locations(authority.cafile)
        context.verify_mode = ssl.CERT_REQUIRED

    certfile, keyfile = stranger.issue("app@example.com")
    with tls_server(*authority.issue("localhost"), demand) as port:
        # With TLS 1.3 what the server says may be lost: then we guess.
        told = problem(port, f"cacertfile={authority.cafile}")
        assert re.search("wants? a certificate of ours.* name it with certfile= and keyfile=", str(told))
        assert isinstance(told, TLSFailed) or "does it want" in str(told)
        told = problem(port, f"cacertfile={authority.cafile}", f"certfile={certfile}", f"keyfile={keyfile}")
        assert f"accept our certificate {certfile} (certfile)" in str(told)
        assert isinstance(told, TLSFailed) or "does it accept" in str(told)


def test_a_port_that_speaks_no_tls_is_told_apart() -> None:
    # What RabbitMQ answers to whatever is no AMQP (AMQP 0-9-1, section 4.2.2).
    def answer(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(b"AMQP\x00\x00\x09\x01")

    with tcp_server(answer) as port:
        told = problem(port)
    assert isinstance(told, TLSFailed)
    assert f"port {port} does not speak TLS" in str(told)


def test_the_tls_port_spoken_to_in_plain_is_guessed(authority: Authority) -> None:
    with tls_server(*authority.issue("localhost")) as port:
        told = problem(port, scheme="amqp")
    assert type(told) is ConnectionFailed
    assert f"is port {port} its TLS port? Then write amqps://" in str(told)


def say_nothing(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(4096):
            pass


def test_silence_in_the_handshake_ends_with_the_connection_timeout() -> None:
    with tcp_server(say_nothing) as port:
        told = problem(port, "connection_timeout=300")
    assert type(told) is ConnectionFailed
    # How long it has been in the end; the default is ten seconds.
    waited = re.search(r"no login within ([\d.]+) s", str(told))
    assert waited
    assert 0.3 <= float(waited[1]) < 9


def test_a_sender_waits_for_a_silent_handshake_no_longer_than_its_timeout() -> None:
    url = "amqps://app:hunter2@localhost:{}?connection_timeout=300000"
    with tcp_server(say_nothing) as port, Sender(url.format(port)) as sender:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"not sent within 0\.3 s"):
            sender.send("a", 1, timeout=0.3)
    assert time.monotonic() - began < 30, "it has waited for the login"


def test_a_stop_in_the_middle_of_a_handshake_does_not_wait_for_it() -> None:
    asked = threading.Event()

    def keep_waiting(client: socket.socket) -> None:
        client.recv(1)
        asked.set()
        say_nothing(client)

    with tcp_server(keep_waiting) as port:
        receiver = Receiver(f"amqps://app:hunter2@localhost:{port}?connection_timeout=300000")
        receiver.register(print, f"tls-stopped-{port}", ["a"])
        with consuming(receiver):
            assert asked.wait(60)
            began = time.monotonic()
    assert time.monotonic() - began < 30, "it has waited for the login"


def test_a_handshake_that_is_cut_is_a_lost_connection() -> None:
    with tcp_server(lambda client: client.recv(1)) as port:
        told = problem(port)
    assert isinstance(told, ConnectionFailed)


def make(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize("unfit", ["missing", "unreadable", "a folder", "garbage", "empty"])
@pytest.mark.parametrize("parameter", ["cacertfile", "certfile", "keyfile"])
def test_a_file_that_cannot_be_used_is_named(
    client: tuple[str, str], tmp_path: Path, parameter: str, unfit: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")  # an error for root too, as whom tests may run
    path = {
        "unreadable": str(tmp_path / "loop"),
        "missing": str(tmp_path / "nowhere.pem"),
        "a folder": str(tmp_path),
        "garbage": make(tmp_path, "garbage.pem", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"),
        "empty": make(tmp_path, "empty.pem", ""),
    }[unfit]
    files = {"certfile": client[0], "keyfile": client[1]} if parameter != "cacertfile" else {}
    told = problem(1, *(f"{name}={value}" for name, value in {**files, parameter: path}.items()))
    assert type(told) is BrokerRefused  # trying again is of no use
    assert path in str(told)
    assert parameter in str(told)


def test_a_key_that_does_not_fit_or_is_not_there_is_told_apart(authority: Authority, client: tuple[str, str]) -> None:
    _, another = authority.issue("b@example.com")
    told = problem(1, f"certfile={client[0]}", f"keyfile={another}")
    assert f"the key in {another} does not belong to the certificate in {client[0]}" in str(told)
    assert "is keyfile= missing?" in str(problem(1, f"certfile={client[0]}"))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(client: tuple[str, str]) -> None:
    key = encrypted(client[1])
    told = problem(1, f"certfile={client[0]}", f"keyfile={key}")
    assert f"the key in {key} is encrypted" in str(told)


def test_verification_that_is_off_is_warned_of_once(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    with tls_server(*authority.issue("broker.example", days=-1)) as port, caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert "no login within" in str(problem(port, "verify=verify_none", "connection_timeout=300"))
    [record] = [record for record in caplog.records if record.name == "domain_events.transport.tls"]
    assert "verify=verify_none" in record.message
    assert f"amqps://app@localhost:{port}/" in record.message
