"""Database connections: none across a fork, and for each event as Django does it for each request."""

from __future__ import annotations

import functools
import logging
from typing import Any

from django.db import close_old_connections, connections, reset_queries

from domain_events.events import DomainEvent
from domain_events.registration import Handler

logger = logging.getLogger(__name__)


def close_connections() -> None:
    """Close all connections of this thread, and their pools. To be called before a fork."""
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        # A pool (Django 5.1+, PostgreSQL) lives on threads, which a fork does not take along.
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None:
            close_pool()


def with_fresh_connections(handler: Handler) -> Handler:
    """`handler`, with what Django does at the start and at the end of a request around each event.

    It closes what is older than CONN_MAX_AGE or was left broken, and forgets the queries that DEBUG collects.
    """

    @functools.wraps(handler)
    def handle(event: DomainEvent) -> Any:
        _tidy()
        try:
            return handler(event)
        finally:
            _tidy()

    # What wraps() cannot take over from an object that is called. `--check` and logs show this name.
    handle.__qualname__ = getattr(handler, "__qualname__", type(handler).__qualname__)
    return handle


def _tidy() -> None:
    try:
        reset_queries()
        close_old_connections()
    except Exception:
        # Database drivers are not ours. The event may well have been handled: it must not fail for this.
        logger.warning("old database connections could not be closed", exc_info=True)
