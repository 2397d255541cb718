"""The public names, used as a user would. Checked by mypy --strict, never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_type
from uuid import UUID, uuid4

from opentelemetry.trace import NoOpTracerProvider

from domain_events import (
    DEFAULT,
    AccessRefused,
    Backoff,
    BrokerBlocked,
    BrokerError,
    BrokerRefused,
    ConfigurationError,
    ConnectionFailed,
    DeadLetter,
    DomainEvent,
    DomainEventError,
    EventNacked,
    EventTooLarge,
    ExchangeMismatch,
    ExchangeMissing,
    HookFailed,
    InvalidName,
    LoginRefused,
    MalformedEvent,
    NullObserver,
    Observer,
    PartlySent,
    Receiver,
    Retry,
    Sender,
    SendError,
    SendTimeout,
    TLSFailed,
    TopologyMismatch,
    Unroutable,
    UnsendableData,
    VirtualHostRefused,
    __version__,
    before_fork,
    child_started,
    child_stopping,
    observe,
    send_domain_event,
    send_domain_events,
)
from domain_events.opentelemetry import instrument

assert_type(__version__, str)


# Events


@dataclass
class User:
    name: str


event = DomainEvent("user.disabled", {"user_id": 1})
assert_type(event.routing_key, str)
assert_type(event.data, Any)
assert_type(event.domain_object_id, str | None)
assert_type(event.uuid_string, str)
assert_type(event.timestamp, float)
assert_type(event.retries, int)
assert_type(event.extra, dict[str, Any])
assert_type(event.to_json(), str)
assert_type(event.encode(), bytes)
assert_type(DomainEvent.from_json(b"{}"), DomainEvent)
assert_type(DomainEvent.from_json("{}", default_id="a", default_timestamp=1.5, retries=1), DomainEvent)
assert_type(DomainEvent.from_cloudevent(b"{}"), DomainEvent)

DomainEvent("user.disabled", None, "7", "abc", 1.5, 2)
DomainEvent("user.disabled", User("Zoë"), domain_object_id=7, timestamp=datetime.now(UTC))
DomainEvent("user.disabled", [1], domain_object_id=uuid4(), uuid_string=str(uuid4()))
DomainEvent("user.disabled")  # type: ignore[call-arg]
DomainEvent(7, {})  # type: ignore[arg-type]
DomainEvent("user.disabled", {}, uuid_string=UUID(int=1))  # type: ignore[arg-type]
event.routing_key = "user.enabled"  # type: ignore[misc]


# Sending

assert_type(send_domain_event("user.disabled", {"user_id": 1}), DomainEvent)
send_domain_event("user.disabled", {}, 7, "abc", 1.5, timeout=5, mandatory=True, connection_settings=None)
send_domain_event("user.disabled", {}, connection_settings=["amqp://one", "amqp://two"])
send_domain_event("user.disabled", {}, connection_settings=DEFAULT)
send_domain_event("user.disabled", {}, connection_settings=5)  # type: ignore[arg-type]
send_domain_event("user.disabled", {}, "7", "abc", 1.5, 10.0)  # type: ignore[call-arg, arg-type]

assert_type(send_domain_events([event, ("user.disabled", {"user_id": 1})]), list[DomainEvent])
send_domain_events((DomainEvent("user.disabled", number) for number in range(3)), timeout=5.0)
send_domain_events([("user.disabled", {"user_id": 1})], connection_settings="amqp://localhost")
send_domain_events(["user.disabled"])  # type: ignore[list-item]

with Sender("amqp://localhost", exchange="domain-events") as sender:
    assert_type(sender, Sender)
    assert_type(sender.send("user.disabled", {}, 7, timeout=1.0), DomainEvent)
    assert_type(sender.send_many([event], mandatory=True), list[DomainEvent])
sender.close()


async def send() -> None:
    assert_type(await sender.send_async("user.disabled", {}, 7, timeout=1.0), DomainEvent)
    assert_type(await sender.send_many_async([event, ("user.disabled", {})], mandatory=True), list[DomainEvent])
    await sender.send_async("user.disabled", {}, "7", "abc", 1.5, 10.0)  # type: ignore[call-arg]


try:
    send_domain_events([event])
except PartlySent as error:
    assert_type(error.unconfirmed, list[DomainEvent])
    assert_type(error.causes, list[SendError])


# Receiving

receiver = Receiver()
Receiver("amqp://user:password@host/domain-events")
Receiver(["amqp://one", "amqp://two"], exchange="other")
Receiver(None)


def handle_user_event(event: DomainEvent) -> None:
    if event.data is None:
        raise DeadLetter("no such user")
    if event.data["retry"]:
        raise Retry()
    raise Retry(5.0**event.retries)


receiver.register(handle_user_event, "printer", ["user.*"])
receiver.register(handle_user_event, "lone", "user.*", retry_on=OSError)
receiver.register(
    handle_user_event,
    "all-options",
    ("user.*", "order.#"),
    dead_letter=False,
    durable=False,
    max_retries=3,
    retry_on=(ConnectionError, TimeoutError),
    backoff=Backoff(first=1.0, factor=3, max=60, jitter=0.0),
    timeout=30,
    processes=2,
    prefetch=10,
    queue_type="classic",
    threads=4,
    single_active=True,
)
receiver.register(print, "any-callable", ["#"])
receiver.register(lambda event: event.routing_key, "its-result-is-ignored", ["#"])
receiver.register("app.handle", "no-callable", ["#"])  # type: ignore[arg-type]
receiver.register(handle_user_event, "unknown-type", ["#"], queue_type="stream")  # type: ignore[arg-type]
receiver.register(handle_user_event, "positional", ["#"], True)  # type: ignore[call-arg]


@receiver.handles("decorated", ["user.*"], max_retries=3)
def decorated(event: DomainEvent) -> int:
    return event.retries


assert_type(decorated(event), int)  # the decorator leaves the function as it is


@receiver.handles("wrong", ["user.*"])  # type: ignore[type-var]
def wrong(first: DomainEvent, second: int) -> None: ...


@receiver.handles("async", ["user.*"], concurrency=100, timeout=5.0)
async def handle_async(event: DomainEvent) -> int:
    return event.retries


async def call_it() -> None:
    assert_type(await handle_async(event), int)


class Handles:
    async def __call__(self, event: DomainEvent) -> None: ...


receiver.register(Handles(), "async-object", ["user.*"])
receiver.register(handle_user_event, "threads-are-a-number", ["#"], threads="4")  # type: ignore[arg-type]


receiver.declare()
receiver.start_consuming()
receiver.start_consuming(timeout=1.5)
receiver.stop_consuming()


# Hooks


@before_fork
def close_everything() -> None: ...


@child_started
def open_client() -> int:
    return 1


child_stopping(close_everything)
assert_type(open_client(), int)  # the decorator leaves the function as it is
child_started(handle_user_event)  # type: ignore[type-var]


# Observing


class CountsRetries(NullObserver):
    retries = 0

    def retried(self, receiver: str, event: DomainEvent, seconds: float, delay: float) -> None:
        self.retries += 1


observer: Observer = CountsRetries()
assert_type(observe(CountsRetries()), CountsRetries)
observe(print)  # type: ignore[type-var]
instrument()
instrument(NoOpTracerProvider())


# Errors: one tree, and Python's own kinds where one fits

everything: list[type[DomainEventError]] = [
    BrokerError,
    ConfigurationError,
    HookFailed,
    InvalidName,
    MalformedEvent,
    SendError,
    UnsendableData,
]
while_sending: list[type[SendError]] = [
    BrokerRefused,
    ConnectionFailed,
    EventNacked,
    EventTooLarge,
    PartlySent,
    SendTimeout,
    Unroutable,
]
refusals: list[type[BrokerRefused]] = [
    AccessRefused,
    ExchangeMismatch,
    ExchangeMissing,
    LoginRefused,
    VirtualHostRefused,
]
failures: list[type[ConnectionFailed]] = [BrokerBlocked, TLSFailed]
mismatch: type[TopologyMismatch] = ExchangeMismatch
configuration: type[ConfigurationError] = TopologyMismatch
timeout: type[TimeoutError] = SendTimeout
connection: type[ConnectionError] = ConnectionFailed
values: list[type[ValueError]] = [ConfigurationError, InvalidName, MalformedEvent, UnsendableData, EventTooLarge]
types: type[TypeError] = UnsendableData
