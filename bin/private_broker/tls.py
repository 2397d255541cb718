"""Certificates for a broker with TLS: a CA of its own, one for the server, one for a client."""

from __future__ import annotations

import os
from pathlib import Path

from private_broker.problem import Problem

CA, SERVER, SERVER_KEY, CLIENT, CLIENT_KEY = "ca.pem", "server.pem", "server.key", "client.pem", "client.key"


def write_certificates(folder: Path) -> None:
    """The server's is for localhost and 127.0.0.1, the client's names guest; all readable by this user alone."""
    try:
        import trustme  # only here: whoever wants no TLS needs no package
    except ImportError as error:
        raise Problem(
            "--tls needs the Python package trustme: run bin/broker with .venv/bin/python after "
            "`bin/setup dev`, or `pip install trustme`"
        ) from error
    folder.mkdir(mode=0o700)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(_private(folder / CA))
    issued = (
        (ca.issue_cert("localhost", "127.0.0.1", common_name="localhost"), SERVER, SERVER_KEY),
        (ca.issue_cert("guest@localhost", common_name="guest"), CLIENT, CLIENT_KEY),
    )
    for certificate, chain, key in issued:
        certificate.private_key_pem.write_to_path(_private(folder / key))
        for number, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(_private(folder / chain), append=number > 0)


def _private(path: Path) -> str:
    """The path, as a file that is 0600 before anything is in it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return str(path)
