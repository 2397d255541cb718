"""Database connections: none across a fork, and for each event as Django does it for each request."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections, reset_queries

from domain_events.surroundings import Surroundings

logger = logging.getLogger(__name__)


def close_connections() -> None:
    """Close all connections of this thread, and their pools. To be called before a fork."""
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        # A pool (Django 5.1+, PostgreSQL) lives on threads, which a fork does not take along.
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None:
            close_pool()


@contextmanager
def around_call() -> Iterator[None]:
    """What Django does at the start and at the end of a request.

    It closes what is older than CONN_MAX_AGE or was left broken, and forgets the queries that DEBUG collects.
    """
    process = os.getpid()
    _tidy()
    try:
        yield
    finally:
        # What a handler forked shares the connection, and a goodbye would end it here.
        if os.getpid() == process:
            _tidy()


@asynccontextmanager
async def around_coroutine() -> AsyncIterator[None]:
    """What Django does around a request that it serves with ASGI.

    Its async ORM works in a thread. Each event has one of its own, as each request has: otherwise the end of one event
    would close the connection that another one is in the middle of using.
    """
    process = os.getpid()
    async with ThreadSensitiveContext():
        try:
            yield
        finally:
            if os.getpid() == process:
                await sync_to_async(_close_all)()


def _tidy() -> None:
    try:
        reset_queries()
        close_old_connections()
    except Exception:
        # Database drivers are not ours. The event may well have been handled: it must not fail for this.
        logger.warning("old database connections could not be closed", exc_info=True)


def _close_all() -> None:
    try:
        connections.close_all()
    except Exception:
        # As above.
        logger.warning("database connections could not be closed", exc_info=True)


SURROUNDINGS = Surroundings(plain=around_call, asynchronous=around_coroutine, thread_ends=_close_all)
