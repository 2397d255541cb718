"""What one client may cost: connections, sizes, and time. uvicorn itself would wait for a slow one for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST_HEAD = 16 * 1024
"""Bytes of a request line with its headers."""

MOST_CONNECTIONS = 100
"""At a time. One more takes the place of the one that has been idle for longest."""

PATIENCE = 10.0
"""Seconds that a client has for its request, and for reading what it has asked for."""

_LOOKS = 4  # in that time


class BoundedProtocol(H11Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: object = None
        self._since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > MOST_CONNECTIONS and not self._makes_room():
            transport.abort()
            return
        self._timer = self.loop.call_later(PATIENCE / _LOOKS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def idle_since(self) -> float:
        return self._since

    def _makes_room(self) -> bool:
        connections: Collection[Any] = self.connections
        others = [each for each in connections if each is not self and each.is_idle]
        oldest = min(others, key=lambda each: each.idle_since, default=None)
        if oldest is None:
            return False
        oldest.transport.abort()
        return True

    def _look(self) -> None:
        """The clock runs while it is the client's turn, and begins anew with each request and each answer."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        seen = (id(self.cycle), self.is_idle)
        if seen != self._seen or not self._is_clients_turn:
            self._seen, self._since = seen, now
        elif now - self._since >= PATIENCE:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(PATIENCE / _LOOKS, self._look)

    @property
    def _is_clients_turn(self) -> bool:
        return self.is_idle or self.cycle.more_body or self.flow.write_paused
