"""What the errors of pika and of the broker become, by the words that RabbitMQ uses."""

from __future__ import annotations

import ssl

import pytest
from pika import exceptions
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)

from domain_events import (
    AccessRefused,
    BrokerRefused,
    ConnectionFailed,
    ExchangeMismatch,
    ExchangeMissing,
    LoginRefused,
    SendError,
    TLSFailed,
    TopologyMismatch,
    VirtualHostRefused,
)
from domain_events.settings import parse_broker
from domain_events.transport.problems import channel_problem, connection_problem
from domain_events.transport.reaching import together

BROKER = parse_broker("amqp://app:hunter2@broker.example:5673/shop", "test")
CLOSED = exceptions.ConnectionClosedByBroker


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1006)")
    error.reason = reason  # as the ssl module itself sets it
    return error


def handshake(error: Exception) -> AMQPConnectionWorkflowFailed:
    """As pika wraps what went wrong while it logged in."""
    return AMQPConnectionWorkflowFailed([AMQPConnectorAMQPHandshakeError(error)])


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (CLOSED(320, "CONNECTION_FORCED - shutdown"), ConnectionFailed, "320 CONNECTION_FORCED"),
        (CLOSED(403, "ACCESS_REFUSED - no"), AccessRefused, "403 ACCESS_REFUSED"),
        (CLOSED(530, "NOT_ALLOWED - vhost shop not found"), VirtualHostRefused, "530 NOT_ALLOWED"),
        (
            CLOSED(530, "NOT_ALLOWED - connection refused for user 'app': user connection limit (1) is reached"),
            ConnectionFailed,
            "limit (1) is reached",
        ),
        (CLOSED(530, "NOT_ALLOWED - access to vhost 'shop' refused: vhost 'shop' is down"), ConnectionFailed, "down"),
        (CLOSED(541, "INTERNAL_ERROR"), ConnectionFailed, "541"),
        (
            handshake(exceptions.ProbableAuthenticationError(repr(CLOSED(403, "ACCESS_REFUSED")))),
            LoginRefused,
            "refused the login of user 'app'",
        ),
        (
            handshake(exceptions.ProbableAccessDeniedError(repr(CLOSED(530, "NOT_ALLOWED - vhost shop not found")))),
            VirtualHostRefused,
            "refused the virtual host 'shop'",
        ),
        (
            handshake(exceptions.ProbableAccessDeniedError(repr(CLOSED(541, "vhost 'shop' is down")))),
            ConnectionFailed,
            "is down",
        ),
        # A broker that was killed while we logged in has refused nothing.
        (
            handshake(exceptions.ProbableAuthenticationError(repr(exceptions.StreamLostError("EOF")))),
            ConnectionFailed,
            "EOF",
        ),
        (
            handshake(exceptions.ProbableAccessDeniedError(repr(exceptions.StreamLostError("EOF")))),
            ConnectionFailed,
            "EOF",
        ),
        (
            AMQPConnectionWorkflowFailed([AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "refused"))]),
            ConnectionFailed,
            "refused",
        ),
        (
            exceptions.AMQPConnectionError(
                AMQPConnectionWorkflowFailed([AMQPConnectorSocketConnectError(TimeoutError("timed out"))])
            ),
            ConnectionFailed,
            "timed out",
        ),
        (exceptions.StreamLostError("Transport indicated EOF"), ConnectionFailed, "EOF"),
        (exceptions.AMQPHeartbeatTimeout("no activity"), ConnectionFailed, "missed its heartbeats"),
        (tls_error("WRONG_VERSION_NUMBER"), TLSFailed, "TLS failed: port 5673 does not speak TLS"),
        (None, ConnectionFailed, "closed"),
    ],
)
def test_why_a_connection_failed(error: Exception | None, kind: type[SendError], words: str) -> None:
    problem = connection_problem(error, BROKER)
    assert type(problem) is kind
    assert words in str(problem)
    assert "amqp://app@broker.example:5673/shop" in str(problem)
    assert "hunter2" not in str(problem)


def test_an_untrusted_certificate_names_the_remedy() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 18, "self-signed certificate"
    problem = connection_problem(AMQPConnectionWorkflowFailed([AMQPConnectorSocketConnectError(error)]), BROKER)
    assert "self-signed certificate" in str(problem)
    assert "cacertfile" in str(problem)


@pytest.mark.parametrize(
    ("problems", "kind", "words"),
    [
        ([LoginRefused("a: no")], LoginRefused, "a: no"),
        ([LoginRefused("a: no"), LoginRefused("b: no")], LoginRefused, "a: no; b: no"),
        ([LoginRefused("a: no"), VirtualHostRefused("b: none")], BrokerRefused, "a: no; b: none"),
        # One that refuses may have left its cluster: those that are away decide.
        ([VirtualHostRefused("a: none"), ConnectionFailed("b: away")], ConnectionFailed, "b: away; a: none"),
        ([TLSFailed("a: old"), TLSFailed("b: old")], TLSFailed, "a: old; b: old"),
        ([TLSFailed("a: old"), ConnectionFailed("b: away")], ConnectionFailed, "a: old; b: away"),
        ([ConnectionFailed("a: away"), ConnectionFailed("a: away")], ConnectionFailed, "a: away"),
    ],
)
def test_several_nodes_are_told_together(problems: list[SendError], kind: type[SendError], words: str) -> None:
    problem = together(problems)
    assert type(problem) is kind
    assert str(problem) == words


def closed(code: int, text: str) -> exceptions.ChannelClosedByBroker:
    return exceptions.ChannelClosedByBroker(code, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'printer:retry:1000' in vhost '/': "
            "received the value '1000' of type 'signedint' but current is the value '2000' of type 'signedint'",
            "queue 'printer:retry:1000' exists with another 'x-message-ttl': asked for 1000, there is 2000",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'printer' in vhost 'shop': "
            "received the value 'quorum' of type 'longstr' but current is none",
            "queue 'printer' exists with another 'x-queue-type': asked for quorum, there is none",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'a b' in vhost '/': "
            "received the value '' of type 'longstr' but current is none",
            "queue 'a b' exists with another 'x-dead-letter-exchange': asked for '', there is none",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'domain-events' in vhost '/': "
            "received 'topic' but current is 'fanout'",
            "exchange 'domain-events' exists with another 'type': asked for topic, there is fanout",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'printer' in vhost '/': "
            "received 'true' but current is 'false'",
            "queue 'printer' exists with another 'durable': asked for true, there is false",
        ),
    ],
)
def test_a_mismatch_names_the_object_the_argument_and_both_values(text: str, words: str) -> None:
    problem = channel_problem(closed(406, text))
    assert type(problem) is (ExchangeMismatch if words.startswith("exchange") else TopologyMismatch)
    assert str(problem).startswith(words + ". ")


def test_a_mismatch_shows_the_way_out() -> None:
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'my printer' in vhost '/': received "
        "the value 'quorum' of type 'longstr' but current is none"
    )
    assert "'my printer'" in str(channel_problem(closed(406, text)))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (closed(403, "ACCESS_REFUSED - access to queue 'a'"), AccessRefused),
        (closed(404, "NOT_FOUND - no exchange 'a'"), ExchangeMissing),
        (closed(404, "NOT_FOUND - no queue 'a'"), BrokerRefused),
        (closed(406, "PRECONDITION_FAILED - something else"), BrokerRefused),
        (closed(405, "RESOURCE_LOCKED"), SendError),
        (closed(541, "INTERNAL_ERROR"), SendError),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), SendError),
        (exceptions.StreamLostError("EOF"), SendError),
        (RuntimeError(), SendError),
    ],
)
def test_why_a_channel_was_closed(error: Exception, kind: type[Exception]) -> None:
    problem = channel_problem(error)
    assert type(problem) is kind
    assert str(problem)


def test_a_reason_is_one_line_of_moderate_length() -> None:
    problem = channel_problem(RuntimeError("first\nsecond " + "x" * 10_000))
    assert "second" not in str(problem)
    assert len(str(channel_problem(RuntimeError("x" * 10_000)))) < 400
