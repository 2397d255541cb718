"""/metrics: the numbers of the master, which outlive its children, and the depths of the queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from domain_events.supervisor.protocol import Inspect, Metrics
from domain_events.web.asking import Master, MasterGone, MasterSilent
from domain_events.web.doors import Doors, Refused

if TYPE_CHECKING:
    from domain_events.metrics import Depth as Measured
    from domain_events.supervisor.metering import MetricsReport
    from domain_events.web.depths import Depth, Depths

_MAX_AGE = 5.0  # seconds
_PATIENCE = 3.0  # seconds: a scrape without depths is better than none


class Scraping:
    def __init__(self, master: Master, depths: Callable[[], Depths], doors: Doors | None) -> None:
        """`depths` makes them, or gives those that there are. `doors`: who asks needs the token; None: nobody does."""
        self._master = master
        self._depths = depths
        self._doors = doors

    async def metrics(self, request: Request) -> Response:
        try:
            if self._doors is not None:
                self._doors.reading(request)
            report = await self._master.look(Metrics())
            inspection = await self._master.look(Inspect())
        except Refused as refused:
            headers = {"www-authenticate": "Bearer"} if refused.asks else None
            return PlainTextResponse(f"{refused.message}\n", refused.status, headers)
        except (MasterSilent, MasterGone) as error:
            return PlainTextResponse(f"{error}\n", 503)
        from domain_events.metrics import exposition  # who does not scrape does without its memory
        from domain_events.web.depths import delays_of

        depths = await self._depths().look(delays_of(inspection), max_age=_MAX_AGE, patience=_PATIENCE)

        accept = request.headers.get("accept", "")
        text, kind = exposition(cast("MetricsReport", report), measured(depths), accept)
        return Response(text, media_type=kind)


def measured(depths: Mapping[str, Depth]) -> Iterator[Measured]:
    """What is not known is left out: a 0 would be a lie."""
    from domain_events.metrics import Depth as Measured

    for receiver, depth in depths.items():
        if depth.queue is not None:
            yield Measured(receiver, "queue", depth.queue)
        if depth.retry is not None:
            yield Measured(receiver, "retry", depth.retry)
        if depth.dead is not None:
            yield Measured(receiver, "dead", depth.dead)
