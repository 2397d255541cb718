"""What the child of --http is for. Nothing here costs anybody else: what it needs is imported in the child."""

from __future__ import annotations

from domain_events.supervisor.http_process import Desk


def serve(desk: Desk) -> None:
    """Until a SIGTERM. Raises ConfigurationError."""
    from domain_events.web.server import run

    run(desk)
