"""What pika needs to know to reach a node. Made once for each: a forked child finds it in the memory that it shares."""

from __future__ import annotations

import copy
import socket
from functools import lru_cache
from typing import Any, Self

import pika
from pika.credentials import ExternalCredentials

from domain_events.settings import Broker
from domain_events.transport.reaching import first_answer
from domain_events.transport.tls import tls_options
from domain_events.version import __version__

HEARTBEAT = 20
"""Seconds, unless the URL says `heartbeat=`. RabbitMQ proposes 60: a consumer whose node falls silent would lose 65 s,
with 20 it loses 25. Less would take a handler that keeps the interpreter to itself for a client that is dead."""


class _Parameters(pika.ConnectionParameters):
    """A connection of pika copies what it is given and changes numbers in the copy. It need not be a deep one: what
    the attributes refer to is never changed."""

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return copy.copy(self)


def connection_parameters(broker: Broker, name: str) -> pika.ConnectionParameters:
    """For one connection. Raises ConfigurationError when the TLS files cannot be read."""
    parameters = copy.copy(prepare_parameters(broker))
    parameters.ssl_options = tls_options(broker)  # not kept: certificates are renewed
    parameters.client_properties = {
        "connection_name": f"{name} {socket.gethostname()}",
        "product": "domain-events",
        "version": __version__,
    }
    return parameters


@lru_cache(maxsize=32)
def prepare_parameters(broker: Broker) -> pika.ConnectionParameters:
    """All that is the same for each connection to this node. pika checks and converts for long."""
    return _Parameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.virtual_host,
        credentials=_credentials(broker),
        heartbeat=HEARTBEAT if broker.heartbeat is None else broker.heartbeat,
        connection_attempts=1,
        socket_timeout=first_answer(broker.connection_timeout),
        stack_timeout=broker.connection_timeout,
        tcp_options={"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3},
    )


def _credentials(broker: Broker) -> pika.PlainCredentials | ExternalCredentials:
    if broker.mechanism == "external":
        return ExternalCredentials()
    return pika.PlainCredentials(broker.user, broker.password)
