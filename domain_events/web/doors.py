"""Who comes in: tokens of machines, sessions of people, and forms that are ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from domain_events.web.access import Access, Limiter, is_own_origin

LARGEST_FORM = 64 * 1024
"""Bytes."""

NO_TOKEN = "Without a token this page is for reading only: start the supervisor with --http-token-file."  # noqa: S105
_MOST_FIELDS = 1000

Form = Mapping[str, Sequence[str]]


class Refused(Exception):
    """With this status, and why. `asks`: for the token."""

    def __init__(self, status: int, message: str, *, asks: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.asks = asks


class Doors:
    def __init__(self, access: Access, port: int) -> None:
        """`port`: cookies are shared by all ports of a host, and each supervisor has its own."""
        self.access = access
        self.cookie = f"domain-events-{port}"
        self._limiter = Limiter()

    def session(self, request: Request) -> str:
        """The cookie of somebody who is logged in; empty for all others."""
        cookie = request.cookies.get(self.cookie, "")
        return cookie if cookie and self.access.is_session(cookie) else ""

    def reading(self, request: Request) -> None:
        """Raises Refused. Where there is no token, everybody may read who can reach us: that is loopback."""
        if self.access.has_token and not self.session(request) and not self._has_token(request):
            raise Refused(401, "The token, please.", asks=True)

    async def changing(self, request: Request) -> Form:
        """The form of somebody who may change something. Raises Refused."""
        if not self.access.has_token:
            raise Refused(403, NO_TOKEN)
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if self._has_token(request):
            # No browser sends this header by itself; if one does send it, it is a script of ours.
            if origin is not None and not is_own_origin(origin, host):
                raise Refused(403, "This request comes from another page.")
            return await read_form(request)
        session = self.session(request)
        if not session:
            raise Refused(401, "The token, please.", asks=True)
        if not is_own_origin(origin, host):
            raise Refused(403, "This form comes from another page.")
        form = await read_form(request)
        if not self.access.is_form_token(one(form, "form_token"), session):
            raise Refused(403, "This form is too old, or not ours. Go back, load the page again, and send it again.")
        return form

    async def entering(self, request: Request) -> tuple[str, Form]:
        """A new session for who knows the token, and the form it came with. Raises Refused."""
        if not is_own_origin(request.headers.get("origin"), request.headers.get("host", "")):
            raise Refused(403, "This form comes from another page.")
        form = await read_form(request)
        if not self._is_right(request, one(form, "token").strip()):
            raise Refused(401, "That is not the token.", asks=True)
        return self.access.new_session(), form

    def _has_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._is_right(request, token.strip())

    def _is_right(self, request: Request, token: str) -> bool:
        address = request.client.host if request.client else ""
        if not self._limiter.may_try(address):
            raise Refused(429, "Too many wrong tokens. Wait half a minute.")
        if self.access.is_token(token):
            return True
        self._limiter.wrong(address)
        return False


async def read_form(request: Request) -> Form:
    """Raises Refused when it is too large, or no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "Only plain forms are understood here.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_FORM:
                raise Refused(413, f"A form has at most {LARGEST_FORM} bytes.")
    except ClientDisconnect:
        raise Refused(400, "The form did not come to its end.") from None
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refused(400, "This is no form.") from None


def one(form: Form, name: str) -> str:
    """A field that stands there once; empty when it is missing."""
    return form[name][0] if form.get(name) else ""
