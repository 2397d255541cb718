"""The page: the overview, a receiver, and what may be done to them."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from domain_events.supervisor.protocol import Failed, Reload, Restart
from domain_events.supervisor.protocol import Request as Order
from domain_events.web.access import SESSION
from domain_events.web.asking import Master
from domain_events.web.doors import one
from domain_events.web.live import Live
from domain_events.web.rendering import static_files
from domain_events.web.site import Site
from domain_events.web.watching import Watching

_FIRST_DEPTHS = 0.7  # seconds that a page waits for them; later ones come by themselves
_ACTING = 20.0  # seconds to wait for the end of what was asked for


class Pages:
    def __init__(self, site: Site, watching: Watching, master: Master, live: Live) -> None:
        self._site = site
        self._watching = watching
        self._master = master
        self._live = live
        self._static = static_files()

    @property
    def routes(self) -> list[BaseRoute]:
        page = self._site.page
        return [
            Route("/", page(self._overview)),
            Route("/receiver", page(self._receiver)),
            Route("/live", page(self._stream)),
            Route("/login", self._ask_for_token),
            Route("/login", page(self._log_in), methods=["POST"]),
            Route("/logout", page(self._log_out), methods=["POST"]),
            Route("/confirm", page(self._confirm)),
            Route("/reload", page(self._reload), methods=["POST"]),
            Route("/restart", page(self._restart), methods=["POST"]),
            Route("/static/{name}", self._file),
        ]

    # To be read

    async def _overview(self, request: Request) -> Response:
        view = await self._watching.overview(patience=_FIRST_DEPTHS)
        return self._site.html(request, "overview.html", view=view)

    async def _receiver(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        each = await self._watching.receiver(name, patience=_FIRST_DEPTHS)
        if each is None:
            return self._unknown(request)
        return self._site.html(request, "receiver.html", each=each, name=name)

    async def _stream(self, request: Request) -> Response:
        name = request.query_params.get("name", "")

        async def overview() -> str:
            self._site.doors.reading(request)
            return self._site.text(request, "_overview.html", view=await self._watching.overview())

        async def receiver() -> str:
            self._site.doors.reading(request)
            each = await self._watching.receiver(name)
            return "" if each is None else self._site.text(request, "_receiver.html", each=each)

        return self._live.stream(receiver if request.query_params.get("page") == "receiver" else overview)

    async def _file(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return Response("not found\n", 404, media_type="text/plain")
        content, kind = found
        return Response(content, media_type=kind, headers={"cache-control": "max-age=300"})

    def _unknown(self, request: Request) -> Response:
        return self._site.said(request, "Not found", "There is no such receiver.", is_bad=True, status=404)

    # Coming and going

    async def _ask_for_token(self, request: Request) -> Response:
        if not self._site.doors.access.has_token or self._site.doors.session(request):
            return RedirectResponse("/", 303)
        return self._site.html(request, "login.html", next="/", message="")

    async def _log_in(self, request: Request) -> Response:
        session, form = await self._site.doors.entering(request)
        answer = RedirectResponse(_local(one(form, "next")), 303)
        answer.set_cookie(
            self._site.doors.cookie,
            session,
            max_age=int(SESSION),
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto") == "https",  # a proxy speaks TLS for us
        )
        return answer

    async def _log_out(self, request: Request) -> Response:
        await self._site.doors.changing(request)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self._site.doors.cookie, httponly=True, samesite="strict")
        return answer

    # What may be done

    async def _confirm(self, request: Request) -> Response:
        self._site.must_be_logged_in(request)
        if request.query_params.get("do") == "reload":
            return self._site.html(
                request,
                "confirm.html",
                title="Reload",
                question="The code is imported again. New processes take over receiver by receiver; if the new code "
                "cannot be run, everything stays as it is.",
                facts=(),
                action="/reload",
                fields=(),
                verb="Reload",
                is_destroying=False,
                offers_canary=False,
                back="/",
            )
        name = request.query_params.get("receiver", "")
        if await self._watching.receiver(name) is None:
            return self._unknown(request)
        return self._site.html(
            request,
            "confirm.html",
            title="Restart",
            question="New processes take over from those that run; these finish what they have in hand.",
            facts=(("Receiver", name),),
            action="/restart",
            fields=(("receiver", name),),
            verb="Restart",
            is_destroying=False,
            offers_canary=False,
            back=f"/receiver?name={quote(name)}",
        )

    async def _reload(self, request: Request) -> Response:
        await self._site.doors.changing(request)
        return await self._act(request, Reload(wait=True), "Reload", "The new code runs.", "/")

    async def _restart(self, request: Request) -> Response:
        name = one(await self._site.doors.changing(request), "receiver")
        back = f"/receiver?name={quote(name)}"
        if not name:
            return self._unknown(request)
        return await self._act(request, Restart(name), "Restart", "New processes have taken over.", back)

    async def _act(self, request: Request, order: Order, title: str, done: str, back: str) -> Response:
        # Also when nobody waits for it any more: the master has been told.
        reply = await asyncio.shield(asyncio.ensure_future(self._master.act(order, _ACTING)))
        if reply is None:
            return self._site.said(
                request, title, "It has been asked for, and goes on. The log says how it ends.", back=back
            )
        if isinstance(reply, Failed):
            return self._site.said(request, title, reply.message, is_bad=True, status=409, back=back)
        return self._site.said(request, title, done, back=back)


def _local(path: str) -> str:
    """Of this page, and of nobody else's."""
    is_ours = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
    return path if is_ours and "\\" not in path else "/"
