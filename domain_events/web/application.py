"""All that is served, put together."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from domain_events.supervisor.http_process import Desk
from domain_events.web.access import Access
from domain_events.web.asking import Master
from domain_events.web.doors import Doors
from domain_events.web.guard import Guard, loopback_hosts
from domain_events.web.health import Health
from domain_events.web.scraping import Scraping

if TYPE_CHECKING:
    from domain_events.web.depths import Depths


class Application:
    def __init__(self, desk: Desk, master: Master, end: asyncio.Event) -> None:
        """`end` is set when the child is about to leave."""
        self._desk = desk
        self._master = master
        self._end = end
        host, port = desk.listener.getsockname()[:2]
        self._is_local = ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
        self._doors = Doors(Access(desk.token), int(port))
        self._closes: list[Callable[[], object]] = []
        health = Health(master)
        # On loopback a scraper needs no token, also when people do: numbers hold no event.
        scraping = Scraping(master, lambda: self._depths, None if self._is_local else self._doors)
        routes: Sequence[BaseRoute] = [
            Route("/livez", health.livez),
            Route("/readyz", health.readyz),
            Route("/metrics", scraping.metrics),
            Mount("/", self._page),
        ]
        self.asgi = Guard(_application(routes), loopback_hosts(host, *desk.hosts) if self._is_local else None)

    def close(self) -> None:
        for close in self._closes:
            close()

    # What only some need is made, and imported, when the first one asks: health checks do without its memory.

    @cached_property
    def _depths(self) -> Depths:
        from domain_events.web.depths import Depths

        depths = Depths(self._desk.registrations, os.environ.get("DOMAIN_EVENTS_MANAGEMENT") or None)
        self._closes.append(depths.close)
        return depths

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pages(scope, receive, send)

    @cached_property
    def _pages(self) -> Starlette:
        from domain_events.web.jobs import Jobs
        from domain_events.web.letter_pages import LetterPages
        from domain_events.web.letters import Letters
        from domain_events.web.live import Live
        from domain_events.web.pages import Pages
        from domain_events.web.site import Site
        from domain_events.web.watching import Watching

        site = Site(self._doors, self._desk.address)
        watching = Watching(self._master, self._depths, self._desk.registrations)
        live = Live(self._end)
        jobs = Jobs()
        self._closes.append(jobs.close)
        pages = Pages(site, watching, self._master, live)
        letter_pages = LetterPages(site, Letters(self._desk.registrations), jobs, live)
        return _application([*pages.routes, *letter_pages.routes])


def _application(routes: Sequence[BaseRoute]) -> Starlette:
    application = Starlette(routes=routes)
    # It would lead to wherever the Host header says.
    application.router.redirect_slashes = False
    return application
