"""/livez and /readyz: whether the master's loop runs, and whether all receivers consume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from domain_events.web.asking import Master, MasterGone, MasterSilent


class Health:
    """Neither needs a token, and neither asks the broker."""

    def __init__(self, master: Master) -> None:
        self._master = master

    async def livez(self, _request: Request) -> Response:
        """Says nothing about the broker: a service that is started again because its broker is away helps nobody."""
        try:
            await self._master.status()
        except (MasterSilent, MasterGone) as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        try:
            status = await self._master.status()
        except (MasterSilent, MasterGone) as error:
            return JSONResponse({"ready": False, "reason": str(error)}, 503)
        is_ready, said = readiness(status)
        return JSONResponse(said, 200 if is_ready else 503)


def readiness(status: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether all receivers consume; and who does not. Of a status of the master. Pure."""
    receivers = status["receivers"]
    others = [{"name": each["name"], "state": each["state"]} for each in receivers if each["state"] != "consuming"]
    is_ready = not others and status["master"]["state"] != "draining"
    return is_ready, {
        "ready": is_ready,
        "master": status["master"]["state"],
        "consuming": len(receivers) - len(others),
        "receivers": len(receivers),
        "not_consuming": others,
    }
