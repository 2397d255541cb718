"""All that is served, put together."""

from __future__ import annotations

import asyncio
import ipaddress

from starlette.applications import Starlette
from starlette.routing import Route

from domain_events.supervisor.http_process import Desk
from domain_events.web.asking import Master
from domain_events.web.guard import Guard, loopback_hosts
from domain_events.web.health import Health


class Application:
    def __init__(self, desk: Desk, master: Master, end: asyncio.Event) -> None:
        """`end` is set when the child is about to leave."""
        health = Health(master)
        host = str(desk.listener.getsockname()[0])
        is_local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        routes = [
            Route("/livez", health.livez),
            Route("/readyz", health.readyz),
        ]
        self.asgi = Guard(Starlette(routes=routes), loopback_hosts(host, desk.host) if is_local else None)

    def close(self) -> None:
        pass
