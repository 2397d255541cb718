"""Around every answer: for whom we are, and what a browser may do with it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    # Nothing from elsewhere, nothing inline, nobody's frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with "no-referrer" browsers hide the origin of a form, too
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        """`hosts` that a request may be for, None: any. On loopback it is the only thing between us and a page from
        somewhere else whose name has begun to mean 127.0.0.1 (DNS rebinding)."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        host = Headers(scope=scope).get("host")
        # Without such a header it is no browser: HTTP/1.0, as some health checks speak it.
        if self._hosts is not None and host is not None and host_of(host) not in self._hosts:
            answer = PlainTextResponse("not the server of that host: ask by the address that it is bound to\n", 421)
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def host_of(header: str) -> str:
    """Without the port, in lower case: of a Host header."""
    host = header.strip().lower()
    head, colon, port = host.rpartition(":")
    return head if colon and port.isdecimal() and (not head.startswith("[") or head.endswith("]")) else host


def loopback_hosts(*more: str) -> frozenset[str]:
    """`more`: names and numbers of the address that we are bound to."""
    given = (f"[{each}]" if ":" in each else each.lower() for each in more)
    return frozenset({"localhost", "127.0.0.1", "[::1]", *given})
