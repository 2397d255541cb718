"""What must happen around each event where its handler runs: a seam for the rooms of frameworks, as `django`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """None of these may raise anything: the event is not to blame."""

    plain: Callable[[], AbstractContextManager[None]]
    """Around each call of a handler, in its thread."""
    asynchronous: Callable[[], AbstractAsyncContextManager[None]]
    """Around each coroutine, in its task."""
    thread_ends: Callable[[], None]
    """Called in a thread of ours that will handle no more events."""


def surround(surroundings: Surroundings) -> None:
    """From now on, whoever begins to consume in this process, or in one that is forked from it."""
    _registered.append(surroundings)


def registered() -> tuple[Surroundings, ...]:
    return tuple(_registered)


@contextmanager
def around_call(surroundings: Sequence[Surroundings]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in surroundings:
            stack.enter_context(each.plain())
        yield


@asynccontextmanager
async def around_coroutine(surroundings: Sequence[Surroundings]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in surroundings:
            await stack.enter_async_context(each.asynchronous())
        yield


_registered: list[Surroundings] = []
