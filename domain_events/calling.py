"""Calls a handler. What it raises is a value, SystemExit too: a failure of this event and of nothing else."""

from __future__ import annotations

import asyncio
import inspect
import os
from contextvars import Context
from typing import NamedTuple

from domain_events.events import DomainEvent
from domain_events.registration import Handler


class Failed(NamedTuple):
    """The handler did not return."""

    error: BaseException
    reason: str | None = None
    """One line for a person, where the class of the error does not say it all."""


def call(handler: Handler, event: DomainEvent, context: Context, process: int) -> Failed | None:
    """None: it returned. Raises only in a process that the handler has forked: that must handle nothing more.

    `process`: the id of the one that handles events.
    """
    try:
        result = context.run(handler, event)
        if result is not None and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            kind = type(result).__name__
            raise TypeError(f"the handler returned a {kind} that nobody would await; make it `async def`")
        if os.getpid() != process:
            raise _came_back()
    except BaseException as error:  # the handler is not our code
        if os.getpid() != process:
            raise  # how a process that the handler has forked ends is not ours to say; it has no event of its own
        return Failed(_without_our_frame(error))
    return None


async def call_async(handler: Handler, event: DomainEvent, timeout: float | None) -> Failed | None:
    """As `call`, for a coroutine function. After `timeout` seconds it is cancelled."""
    process = os.getpid()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            result = await handler(event)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("the handler returned a coroutine that nobody would await; `return await` it")
        if os.getpid() != process:
            raise _came_back()
    except BaseException as error:  # the handler is not our code
        if os.getpid() != process:
            raise
        if timeout is not None and isinstance(error, TimeoutError) and limit.expired():
            return _too_slow(error, timeout)
        return Failed(_without_our_frame(error))
    return None


def _too_slow(error: TimeoutError, timeout: float) -> Failed:
    reason = f"the handler did not end within {timeout:g} s"
    late = TimeoutError(reason)
    # Where the handler was when it was cancelled.
    late.__cause__ = _without_our_frame(error.__cause__ or error)
    return Failed(late, reason)


def _without_our_frame(error: BaseException) -> BaseException:
    """The traceback is for those who wrote the handler."""
    beneath = error.__traceback__ and error.__traceback__.tb_next
    return error.with_traceback(beneath) if beneath is not None else error


def _came_back() -> SystemExit:
    return SystemExit("a process that a handler forked came back from the handler: end it with os._exit()")
