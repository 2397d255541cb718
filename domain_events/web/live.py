"""Server-sent events: what is shown, again and again, as long as somebody looks at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import StreamingResponse

from domain_events.web.asking import MasterGone, MasterSilent
from domain_events.web.doors import Refused

MOST_WATCHERS = 16
"""At a time."""

_EVERY = 2.0  # seconds
_SIGN_OF_LIFE = 7  # times that nothing has changed, after which something is sent in any case


class Live:
    def __init__(self, end: asyncio.Event) -> None:
        """`end` ends all streams."""
        self._end = end
        self._watchers = 0

    def stream(self, render: Callable[[], Awaitable[str]]) -> StreamingResponse:
        """`render` gives the HTML of now; it raises Refused for who may not see it any more. Raises Refused."""
        if self._watchers >= MOST_WATCHERS:
            raise Refused(503, "Too many are watching.")
        # Counted when it begins, for what never begins never ends.
        return StreamingResponse(self._events(render), media_type="text/event-stream")

    async def _events(self, render: Callable[[], Awaitable[str]]) -> AsyncIterator[str]:
        self._watchers += 1
        try:
            last, quiet = "", 0
            while not self._end.is_set():
                try:
                    html = await render()
                    said = f"event: fresh\ndata: {json.dumps(html)}\n\n"
                except Refused:
                    return  # whoever watches is logged in no longer
                except (MasterSilent, MasterGone):
                    said = "event: silent\ndata:\n\n"
                quiet = quiet + 1 if said == last else 0
                if not quiet or quiet % _SIGN_OF_LIFE == 0:
                    yield said
                last = said
                await self._pause()
        finally:
            self._watchers -= 1

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_EVERY):
                await self._end.wait()
        except TimeoutError:
            pass
