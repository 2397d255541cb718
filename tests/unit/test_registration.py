"""What a receiver may promise, and how a bad promise is refused."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from domain_events.errors import InvalidName
from domain_events.events import DomainEvent
from domain_events.policy import Backoff, Policy
from domain_events.registration import LARGEST_PREFETCH, Registration
from domain_events.transport.subscription import default_prefetch
from tests.registrations import register


def handle(event: DomainEvent) -> None:
    """A handler."""


class Handler:
    def __call__(self, event: DomainEvent) -> None:
        """A handler that is an object."""

    def method(self, event: DomainEvent) -> None:
        """A handler that is a method."""


async def handle_async(event: DomainEvent) -> None:
    """Runs in the event loop."""


def handle_lazily(event: DomainEvent) -> Iterator[None]:
    yield


async def handle_lazily_async(event: DomainEvent) -> AsyncIterator[None]:
    yield


class AsyncHandler:
    async def __call__(self, event: DomainEvent) -> None:
        """Runs in the event loop."""

    async def method(self, event: DomainEvent) -> None:
        """Runs in the event loop."""


class LazyHandler:
    def __call__(self, event: DomainEvent) -> Iterator[None]:
        yield


def test_a_registration_holds_what_was_given():
    backoff = Backoff(first=1.0)
    registration = register(
        handle,
        binding_keys=["user.*", "order.#"],
        dead_letter=False,
        durable=False,
        max_retries=3,
        retry_on=[OSError, KeyError],
        backoff=backoff,
        timeout=5,
        processes=2,
        prefetch=10,
        queue_type="classic",
        exchange="other",
        connection_settings=None,
        threads=4,
        single_active=True,
    )
    assert registration == Registration(
        name="printer",
        binding_keys=("user.*", "order.#"),
        handler=handle,
        policy=Policy(max_retries=3, retry_on=(OSError, KeyError), backoff=backoff),
        dead_letter=False,
        durable=False,
        timeout=5,
        processes=2,
        prefetch=10,
        queue_type="classic",
        exchange="other",
        connection_settings=None,
        is_async=False,
        concurrency=4,
        single_active=True,
    )


def test_a_lone_binding_key_or_error_needs_no_list():
    registration = register(binding_keys="user.*", retry_on=OSError)
    assert registration.binding_keys == ("user.*",)
    assert registration.policy.retry_on == (OSError,)


def test_binding_keys_may_come_from_a_generator_and_count_once():
    assert register(binding_keys=(key for key in ("b", "a", "b"))).binding_keys == ("b", "a")


@pytest.mark.parametrize(
    ("handler", "shown"),
    [
        (handle, "handle"),
        (Handler.method, "Handler.method"),
        (Handler().method, "Handler.method"),
        (Handler(), "Handler"),
        (functools.partial(handle), "partial"),
        (print, "print"),
    ],
)
def test_a_handler_is_shown_as_module_and_function(handler: Any, shown: str):
    module, _, name = register(handler).handler_name.partition(f".{shown}")
    assert name == ""
    assert module in (__name__, "functools", "builtins")


@pytest.mark.parametrize("name", ["", "amq.x", "x:dead", "x:retry:5", "a\nb", "x" * 201, None])
def test_a_bad_name_is_refused(name: Any):
    with pytest.raises(InvalidName, match="receiver name"):
        register(name=name)


@pytest.mark.parametrize("keys", [["user.*", "user*"], [""], [None], [7], b"user", "a..b"])
def test_a_bad_binding_key_is_refused(keys: Any):
    with pytest.raises(InvalidName, match="binding key"):
        register(binding_keys=keys)


@pytest.mark.parametrize(
    "handler",
    [handle_lazily, handle_lazily_async, LazyHandler(), functools.partial(handle_lazily)],
)
def test_a_handler_that_would_do_nothing_when_called_is_refused(handler: Any):
    with pytest.raises(TypeError, match=r"receiver 'printer': .* a generator does nothing"):
        register(handler)


@pytest.mark.parametrize(
    "handler",
    [
        handle_async,
        AsyncHandler(),
        AsyncHandler().method,
        functools.partial(handle_async),
        functools.partial(AsyncHandler()),
        functools.partial(functools.partial(AsyncHandler().method)),
    ],
)
def test_an_async_handler_is_told_by_what_a_call_of_it_runs(handler: Any):
    registration = register(handler)
    assert registration.is_async
    assert registration.concurrency == 10
    assert register(handler, concurrency=3).concurrency == 3


@pytest.mark.parametrize("handler", [handle, Handler(), Handler().method, functools.partial(Handler()), print, Handler])
def test_every_other_handler_is_a_plain_one_and_has_as_many_events_in_hand_as_threads(handler: Any):
    registration = register(handler)
    assert not registration.is_async
    assert registration.concurrency == 1
    assert register(handler, threads=8).concurrency == 8


@pytest.mark.parametrize(
    ("given", "prefetch"),
    [
        ({}, 250),
        ({"threads": 125}, 250),
        ({"threads": 126}, 252),
        ({"handler": handle_async}, 250),
        ({"handler": handle_async, "concurrency": 130}, 260),
        ({"handler": handle_async, "concurrency": 10_000}, LARGEST_PREFETCH),
    ],
)
def test_as_many_events_wait_as_are_in_hand(given: dict[str, Any], prefetch: int):
    assert default_prefetch(register(**given).concurrency) == prefetch


def test_a_prefetch_may_be_as_small_as_what_is_in_hand():
    assert register(threads=8, prefetch=8).prefetch == 8
    assert register(handle_async, concurrency=100, prefetch=100).prefetch == 100


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"handler": None}, TypeError, "the handler must be callable, not NoneType"),
        ({"handler": "app.handle"}, TypeError, "the handler must be callable, not str"),
        ({"binding_keys": []}, ValueError, "has no binding keys"),
        ({"binding_keys": None}, TypeError, "binding_keys must be a list of strings, not NoneType"),
        ({"retry_on": "OSError"}, TypeError, "retry_on='O' is no exception class"),
        ({"retry_on": OSError()}, TypeError, r"retry_on=OSError\(\) is no exception class"),
        ({"retry_on": [OSError, int]}, TypeError, "retry_on=<class 'int'> is no exception class"),
        ({"retry_on": int}, TypeError, "retry_on=<class 'int'> is no exception class"),
        ({"retry_on": None}, TypeError, "retry_on=None is no exception class"),
        ({"backoff": 10.0}, TypeError, "backoff must be a Backoff, not float"),
        ({"queue_type": "stream"}, ValueError, "queue_type='stream' must be one of quorum, classic"),
        ({"timeout": 0}, ValueError, "timeout=0 must be"),
        ({"timeout": -1.0}, ValueError, "timeout="),
        ({"timeout": math.nan}, ValueError, "timeout=nan"),
        ({"timeout": math.inf}, ValueError, "timeout=inf"),
        ({"timeout": "5"}, TypeError, "timeout='5'"),
        ({"timeout": True}, TypeError, "timeout=True"),
        ({"max_retries": -1}, ValueError, "max_retries=-1 must be between 0 and"),
        ({"max_retries": 1.5}, TypeError, "max_retries=1.5 must be a whole number"),
        ({"max_retries": True}, TypeError, "max_retries=True"),
        ({"max_retries": None}, TypeError, "max_retries=None"),
        ({"processes": 0}, ValueError, "processes=0 must be between 1 and 1000"),
        ({"processes": 1001}, ValueError, "processes=1001"),
        ({"prefetch": 0}, ValueError, "prefetch=0 must be between 1 and 10000"),
        ({"prefetch": LARGEST_PREFETCH + 1}, ValueError, "prefetch=10001"),
        ({"prefetch": "10"}, TypeError, "prefetch='10'"),
        ({"prefetch": 7, "threads": 8}, ValueError, "prefetch=7 is less than threads=8"),
        ({"prefetch": 9, "handler": handle_async}, ValueError, "prefetch=9 is less than concurrency=10"),
        ({"threads": 0}, ValueError, "threads=0 must be between 1 and 1000"),
        ({"threads": 1001}, ValueError, "threads=1001"),
        ({"threads": "8"}, TypeError, "threads='8'"),
        ({"threads": 2, "handler": handle_async}, ValueError, "threads=2 is for plain handlers"),
        ({"concurrency": 10}, ValueError, "concurrency=10 is for `async def` handlers"),
        ({"concurrency": 0, "handler": handle_async}, ValueError, "concurrency=0 must be between 1 and 10000"),
        ({"concurrency": 10_001, "handler": handle_async}, ValueError, "concurrency=10001"),
        ({"concurrency": 1.5, "handler": handle_async}, TypeError, "concurrency=1.5"),
    ],
)
def test_a_bad_option_is_refused_and_the_receiver_and_the_option_named(
    given: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=f"^receiver 'printer'.* ?{message}"):
        register(**given)
