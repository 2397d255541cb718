"""Certificates for tests, and a server that speaks TLS and no AMQP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority, and what it signs, as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self._made = 0
        self.cafile = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.cafile)

    def issue(self, *names: str, common_name: str | None = None, days: int = 1) -> tuple[str, str]:
        """A new certificate and its key; it ends in `days`, which may be past."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(
            *names,
            common_name=common_name,
            not_before=now - timedelta(days=30),
            not_after=now + timedelta(days=days),
        )
        self._made += 1
        certfile, keyfile = (str(self._folder / f"{self._made}.{end}") for end in ("pem", "key"))
        made.cert_chain_pems[0].write_to_path(certfile)
        made.private_key_pem.write_to_path(keyfile)
        return certfile, keyfile


def encrypted(keyfile: str) -> str:
    """Another file with the same key, under a password."""
    made = f"{keyfile}.encrypted"
    command = ["openssl", "pkey", "-in", keyfile, "-aes256", "-passout", "pass:pencil", "-out", made]
    subprocess.run(command, check=True, capture_output=True)
    return made


def self_signed(folder: Path) -> tuple[str, str]:
    """A certificate for localhost that nobody but itself vouches for, and its key."""
    certfile, keyfile = str(folder / "self.pem"), str(folder / "self.key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", keyfile, "-out", certfile]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return certfile, keyfile


@contextlib.contextmanager
def tls_server(certfile: str, keyfile: str, change: Callable[[ssl.SSLContext], object] = id) -> Iterator[int]:
    """The port of a server that shakes hands, then says nothing. `change` is given its context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile, keyfile)
    change(context)

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as secured:
            while secured.recv(4096):
                pass

    with tcp_server(serve) as port:
        yield port


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """The port of a server that does this with each client, one after the other."""

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    serve(client)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes up accept(), which close() does not
        listener.close()
