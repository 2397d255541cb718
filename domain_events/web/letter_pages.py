"""The pages of the dead letters of a receiver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from domain_events.errors import DomainEventError
from domain_events.transport.dead_letters.queue import Busy
from domain_events.web.doors import Refused, one
from domain_events.web.jobs import Job, Jobs
from domain_events.web.letters import Letters, Query, Shelf
from domain_events.web.live import Live
from domain_events.web.rendering import packed, plural, unpacked
from domain_events.web.site import Site

AGES: Mapping[str, float] = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0}

_DONE: Mapping[str, Literal["replayed", "discarded"]] = {"replay": "replayed", "discard": "discarded"}
_FRESH = 10.0  # seconds that a look stands for the next one
_KEPT = 8  # looks
_LONGEST_FIELD = 500  # characters
_JOB_PATIENCE = 1.5  # seconds: most are over by then

T = TypeVar("T")


class LetterPages:
    def __init__(self, site: Site, letters: Letters, jobs: Jobs, live: Live) -> None:
        self._site = site
        self._letters = letters
        self._jobs = jobs
        self._live = live
        self._threads = ThreadPoolExecutor(2, "de-letters")
        self._looks: dict[tuple[str, Query], tuple[float, asyncio.Future[Shelf]]] = {}

    @property
    def routes(self) -> list[BaseRoute]:
        page = self._site.page
        return [
            Route("/letters", page(self._list)),
            Route("/letter", page(self._show)),
            Route("/letters/confirm", page(self._confirm)),
            Route("/letters/do", page(self._do), methods=["POST"]),
            Route("/job", page(self._job)),
            Route("/job/live", page(self._job_live)),
            Route("/job/stop", page(self._stop), methods=["POST"]),
        ]

    # To be read

    async def _list(self, request: Request) -> Response:
        receiver, query = _asked(request)
        try:
            shelf = await self._look(receiver, query)
        except DomainEventError as error:
            return self._failed(request, error)
        return self._site.html(
            request,
            "letters.html",
            receiver=receiver,
            query=query,
            age=request.query_params.get("age", ""),
            ages=AGES,
            shelf=shelf,
            link=lambda **changed: _link("/letters", receiver, query, **changed),
            confirm=lambda do, **changed: _link("/letters/confirm", receiver, query, do=do, **changed),
        )

    async def _show(self, request: Request) -> Response:
        receiver, letter_id = request.query_params.get("receiver", ""), unpacked(request.query_params.get("id", ""))
        try:
            shown = await self._in_thread(lambda: self._letters.show(receiver, letter_id))
        except DomainEventError as error:
            return self._failed(request, error)
        if shown is None:
            return self._site.said(
                request,
                "Not found",
                "This dead letter is not there any more, or lies behind very many others.",
                is_bad=True,
                status=404,
                back=f"/letters?receiver={quote(receiver)}",
            )
        return self._site.html(request, "letter.html", receiver=receiver, shown=shown, letter=shown.detail)

    async def _look(self, receiver: str, query: Query) -> Shelf:
        """At most a few seconds old, and asked for once by all who ask at the same time."""
        now = time.monotonic()
        self._looks = {key: look for key, look in self._looks.items() if now - look[0] < _FRESH}
        key = (receiver, query)
        if key not in self._looks:
            if len(self._looks) >= _KEPT:
                del self._looks[min(self._looks, key=lambda each: self._looks[each][0])]
            self._looks[key] = now, self._in_thread(lambda: self._letters.look(receiver, query))
        try:
            return await asyncio.shield(self._looks[key][1])
        except DomainEventError:
            self._looks.pop(key, None)
            raise

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._threads, work))

    def _failed(self, request: Request, error: DomainEventError) -> Response:
        return self._site.said(
            request, "Dead letters", str(error), is_bad=True, status=409 if isinstance(error, Busy) else 503
        )

    # What may be done to them

    async def _confirm(self, request: Request) -> Response:
        self._site.must_be_logged_in(request)
        receiver, query = _asked(request)
        do = "discard" if request.query_params.get("do") == "discard" else "replay"
        ids = request.query_params.getlist("id")
        which = "ids" if request.query_params.get("which") == "ids" else "matching"
        if which == "ids" and not ids:
            return self._site.said(
                request, "Nothing chosen", "Choose some first.", is_bad=True, back=_link("/letters", receiver, query)
            )
        try:
            count = len(ids) or (await self._look(receiver, query)).matching
        except DomainEventError as error:
            return self._failed(request, error)
        many = count > 1
        return self._site.html(
            request,
            "confirm.html",
            title="Replay" if do == "replay" else "Discard",
            question="They go back to this receiver's queue, with no retries counted, and to no other receiver."
            if do == "replay"
            else "They are gone for good then: nothing brings them back.",
            facts=(("Receiver", receiver), ("Events", str(count)), ("Which", _in_words(query, len(ids)))),
            action="/letters/do",
            fields=[
                ("receiver", receiver),
                ("do", do),
                ("which", which),
                *_fields(query),
                *(("id", each) for each in ids),
            ],
            verb=f"{'Replay' if do == 'replay' else 'Discard'} {plural(count, 'event')}",
            is_destroying=do == "discard",
            offers_canary=do == "replay" and many,
            back=_link("/letters", receiver, query),
        )

    async def _do(self, request: Request) -> Response:
        form = await self._site.doors.changing(request)
        receiver, ids = one(form, "receiver"), form.get("id", ())
        query = _query({name: one(form, name) for name in form})
        # Without ids it would be about everything.
        if one(form, "do") not in _DONE or not receiver or one(form, "which") != ("ids" if ids else "matching"):
            raise Refused(400, "This form is not whole.")
        try:
            job = self._jobs.begin(
                lambda: self._letters.open(receiver),
                did=_DONE[one(form, "do")],
                receiver=receiver,
                wanted=query.wanted(time.time(), map(unpacked, ids)),
                what=_in_words(query, len(ids)),
                canary=bool(one(form, "canary")),
            )
        except DomainEventError as error:
            return self._failed(request, error)
        self._looks.clear()
        until = time.monotonic() + _JOB_PATIENCE
        while not job.is_over and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return RedirectResponse(f"/job?id={job.id}", 303)

    async def _job(self, request: Request) -> Response:
        job = self._wanted_job(request.query_params.get("id", ""))
        self._looks.clear()
        return self._site.html(request, "job.html", job=job)

    async def _job_live(self, request: Request) -> Response:
        job = self._wanted_job(request.query_params.get("id", ""))

        async def render() -> str:
            self._site.doors.reading(request)
            return self._site.text(request, "_job.html", job=job)

        return self._live.stream(render)

    async def _stop(self, request: Request) -> Response:
        form = await self._site.doors.changing(request)
        job = self._wanted_job(one(form, "id"))
        job.stop.set()
        return RedirectResponse(f"/job?id={job.id}", 303)

    def _wanted_job(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise Refused(404, "Nothing is known of that any more. The log says how it ended.")
        return job


def _asked(request: Request) -> tuple[str, Query]:
    return request.query_params.get("receiver", ""), _query(request.query_params)


def _query(given: Mapping[str, str]) -> Query:
    return Query(
        fingerprint=unpacked(given.get("fingerprint", ""))[:_LONGEST_FIELD],
        error_type=unpacked(given.get("error_type", ""))[:_LONGEST_FIELD],
        text=given.get("q", "")[:_LONGEST_FIELD].strip(),  # as somebody has typed it
        age=AGES.get(given.get("age", "")),
    )


def _fields(query: Query) -> list[tuple[str, str]]:
    age = next((name for name, seconds in AGES.items() if seconds == query.age), "")
    given = (
        ("fingerprint", packed(query.fingerprint)),
        ("error_type", packed(query.error_type)),
        ("q", query.text),
        ("age", age),
    )
    return [(name, value) for name, value in given if value]


def _link(path: str, receiver: str, query: Query, **changed: str) -> str:
    """`changed`: other values; an empty one takes a field away."""
    values = {"receiver": receiver, **dict(_fields(query))} | changed
    return f"{path}?{urlencode({name: value for name, value in values.items() if value})}"


def _in_words(query: Query, ids: int) -> str:
    if ids:
        return plural(ids, "chosen event")
    parts: Sequence[str] = [
        *([f"cause {query.fingerprint}"] if query.fingerprint else []),
        *([f"error {query.error_type}"] if query.error_type else []),
        *([f"with “{query.text}”"] if query.text else []),
        *([f"of the last {next(name for name, seconds in AGES.items() if seconds == query.age)}"] if query.age else []),
    ]
    return ", ".join(parts) or "all dead letters of this receiver"
