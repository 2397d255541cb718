"""What all pages have in common: the door in front of them, templates, and errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from domain_events.version import __version__
from domain_events.web.asking import MasterGone, MasterSilent
from domain_events.web.doors import NO_TOKEN, Doors, Refused
from domain_events.web.rendering import Templates

Page = Callable[[Request], Awaitable[Response]]


class Site:
    def __init__(self, doors: Doors, address: str) -> None:
        self.doors = doors
        self._templates = Templates(address=address, version=__version__)

    def page(self, show: Page) -> Page:
        """With the door in front of it, and errors as pages."""

        async def guarded(request: Request) -> Response:
            try:
                if request.method != "POST":
                    self.doors.reading(request)
                return await show(request)
            except Refused as refused:
                return self.refused(request, refused)
            except (MasterSilent, MasterGone) as error:
                return self.said(request, "No answer", str(error), is_bad=True, status=503)

        return guarded

    def must_be_logged_in(self, request: Request) -> None:
        """Raises Refused: for pages that lead to a change."""
        if not self.doors.access.has_token:
            raise Refused(403, NO_TOKEN)
        if not self.doors.session(request):
            raise Refused(401, "The token, please.", asks=True)

    def html(self, request: Request, template: str, /, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(self.text(request, template, **values), status)

    def text(self, request: Request, template: str, /, **values: object) -> str:
        session = self.doors.session(request)
        return self._templates.render(
            template,
            has_token=self.doors.access.has_token,
            may_change=bool(session),
            form_token=self.doors.access.form_token(session) if session else "",
            **values,
        )

    def said(
        self, request: Request, title: str, message: str, *, is_bad: bool = False, status: int = 200, back: str = "/"
    ) -> HTMLResponse:
        return self.html(request, "said.html", status, title=title, message=message, is_bad=is_bad, back=back)

    def refused(self, request: Request, refused: Refused) -> Response:
        if not refused.asks:
            return self.said(request, "No", refused.message, is_bad=True, status=refused.status)
        # Not request.url: it is made of the Host header, which may be nonsense.
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        here = f"{quote(path)}?{query}" if query else quote(path)
        wanted = here if request.method == "GET" and path not in ("/login", "/live", "/job/live") else "/"
        message = "" if request.method == "GET" else refused.message
        answer = self.html(request, "login.html", refused.status, next=wanted, message=message)
        answer.headers["www-authenticate"] = "Bearer"
        return answer
