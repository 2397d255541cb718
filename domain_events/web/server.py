"""One asyncio loop with uvicorn's server in it, from the first request to the SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import h11
import uvicorn

from domain_events.supervisor.http_process import Desk
from domain_events.web.application import Application
from domain_events.web.asking import Master, MasterGone
from domain_events.web.bounds import LONGEST_HEAD, BoundedProtocol

_GOODBYE = 1  # seconds for what is being answered when a SIGTERM comes


class _Server(uvicorn.Server):
    """uvicorn's, which would wake up ten times a second to look whether it should end, and take signals for itself."""

    def __init__(self, config: uvicorn.Config, end: asyncio.Event) -> None:
        super().__init__(config)
        self._end = end

    async def main_loop(self) -> None:
        await self._end.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_ours(record: logging.LogRecord) -> bool:
    """Not: an answer to who has broken off, or has gone on with nonsense, while it was being made."""
    return not (record.exc_info and isinstance(record.exc_info[1], h11.LocalProtocolError))


def run(desk: Desk) -> None:
    asyncio.run(_run(desk))


async def _run(desk: Desk) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    # Whoever sends nonsense must not fill our log with it. What is wrong with us is an ERROR.
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.ERROR)
    log.addFilter(_is_ours)
    master = await Master.connect(desk.asking, desk.acting, gone=end.set)
    application = Application(desk, master, end)
    config = uvicorn.Config(
        application.asgi,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_GOODBYE,
        backlog=64,
    )
    serving = asyncio.ensure_future(_Server(config, end).serve(sockets=[desk.listener]))
    desk.serving()
    try:
        await serving
    finally:
        application.close()
    if master.is_gone:
        raise MasterGone
