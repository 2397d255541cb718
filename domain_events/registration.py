"""What a receiver promised to do: its name, what it listens to, its handler and its policy."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from domain_events.events import DomainEvent
from domain_events.names import check_binding_key, check_receiver_name
from domain_events.policy import Backoff, Policy
from domain_events.settings import ConnectionSettings

Handler: TypeAlias = Callable[[DomainEvent], Any]
QueueType: TypeAlias = Literal["quorum", "classic"]

LARGEST_PREFETCH = 10_000
"""As many coroutines as may be in hand. RabbitMQ's own limit is 65535."""

MOST_THREADS = 1000
MOST_COROUTINES = 10_000
DEFAULT_COROUTINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One receiver. Made by `Receiver.register`, which documents the fields."""

    name: str
    binding_keys: tuple[str, ...]
    handler: Handler
    policy: Policy
    dead_letter: bool
    durable: bool
    timeout: float | None
    processes: int
    prefetch: int | None
    queue_type: QueueType
    exchange: str
    connection_settings: ConnectionSettings
    is_async: bool = False
    """The handler is a coroutine function."""
    concurrency: int = 1
    """How many events a process may have in hand at once: in threads, or as coroutines when it `is_async`."""
    single_active: bool = False

    @property
    def handler_name(self) -> str:
        """As `module.function`."""
        handler = self.handler
        module = getattr(handler, "__module__", None) or type(handler).__module__
        return f"{module}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"


def make_registration(
    handler: Handler,
    name: str,
    binding_keys: str | Iterable[str],
    *,
    dead_letter: bool,
    durable: bool,
    max_retries: int,
    retry_on: type[BaseException] | Iterable[type[BaseException]],
    backoff: Backoff,
    timeout: float | None,
    processes: int,
    prefetch: int | None,
    queue_type: QueueType,
    exchange: str,
    connection_settings: ConnectionSettings,
    threads: int = 1,
    concurrency: int | None = None,
    single_active: bool = False,
) -> Registration:
    """Check what can be checked without a broker. Raises ValueError or TypeError, naming the culprit."""
    check_receiver_name(name)
    where = f"receiver {name!r}"
    if not callable(handler):
        raise TypeError(f"{where}: the handler must be callable, not {type(handler).__name__}")
    if _is(handler, inspect.isgeneratorfunction) or _is(handler, inspect.isasyncgenfunction):
        # Calling it would do nothing, and every event would count as handled.
        raise TypeError(f"{where}: the handler must do its work when called; a generator does nothing")
    if not isinstance(binding_keys, Iterable):
        raise TypeError(f"{where}: binding_keys must be a list of strings, not {type(binding_keys).__name__}")
    keys = (binding_keys,) if isinstance(binding_keys, str) else tuple(binding_keys)
    if not keys:
        raise ValueError(f"{where} has no binding keys; give at least one, '#' for every event")
    for key in keys:
        check_binding_key(key)
    if not isinstance(retry_on, (type, Iterable)):
        raise TypeError(f"{where}: retry_on={retry_on!r} is no exception class")
    errors = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise TypeError(f"{where}: retry_on={error!r} is no exception class")
    if not isinstance(backoff, Backoff):
        raise TypeError(f"{where}: backoff must be a Backoff, not {type(backoff).__name__}")
    if queue_type not in get_args(QueueType):
        raise ValueError(f"{where}: queue_type={queue_type!r} must be one of {', '.join(get_args(QueueType))}")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"{where}: timeout={timeout!r} must be a number of seconds, or None")
        if not 0 < timeout < math.inf:
            raise ValueError(f"{where}: timeout={timeout!r} must be a number of seconds above 0, or None")
    is_async = _is(handler, inspect.iscoroutinefunction)
    at_once = _at_once(where, is_async, threads, concurrency)
    if prefetch is not None and _whole_number(where, "prefetch", prefetch, 1, LARGEST_PREFETCH) < at_once:
        what = "concurrency" if is_async else "threads"
        raise ValueError(
            f"{where}: prefetch={prefetch} is less than {what}={at_once}, so that some would never have an event; "
            f"ask for at least as many"
        )
    return Registration(
        name=name,
        binding_keys=tuple(dict.fromkeys(keys)),
        handler=handler,
        policy=Policy(
            max_retries=_whole_number(where, "max_retries", max_retries, 0, 2**31),
            retry_on=errors,
            backoff=backoff,
        ),
        dead_letter=bool(dead_letter),
        durable=bool(durable),
        timeout=timeout,
        processes=_whole_number(where, "processes", processes, 1, 1000),
        prefetch=prefetch,
        queue_type=queue_type,
        exchange=exchange,
        connection_settings=connection_settings,
        is_async=is_async,
        concurrency=at_once,
        single_active=bool(single_active),
    )


def _is(handler: object, kind: Callable[[object], bool]) -> bool:
    """Whether that is what a call of `handler` runs: it may be an object with `__call__`, or a partial of either."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return kind(handler) or kind(type(handler).__call__)


def _at_once(where: str, is_async: bool, threads: int, concurrency: int | None) -> int:
    threads = _whole_number(where, "threads", threads, 1, MOST_THREADS)
    if is_async:
        if threads > 1:
            raise ValueError(f"{where}: threads={threads} is for plain handlers; for `async def` it is concurrency=")
        if concurrency is None:
            return DEFAULT_COROUTINES
        return _whole_number(where, "concurrency", concurrency, 1, MOST_COROUTINES)
    if concurrency is not None:
        raise ValueError(
            f"{where}: concurrency={concurrency!r} is for `async def` handlers; for plain ones it is threads="
        )
    return threads


def _whole_number(where: str, what: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {what}={value!r} must be a whole number")
    if not least <= value <= most:
        raise ValueError(f"{where}: {what}={value} must be between {least} and {most}")
    return value
