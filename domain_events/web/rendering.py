"""HTML from templates. Whatever a broker or an application has said is hostile: all of it is escaped, everywhere."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from domain_events.showing import printable

_ROOM = files("domain_events.web")
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def static_files() -> dict[str, tuple[bytes, str]]:
    """By name: what is in it, and its media type. All of it is a few kilobytes."""
    return {name: (_ROOM.joinpath("static", name).read_bytes(), kind) for name, kind in _STATIC.items()}


class Templates:
    def __init__(self, **everywhere: Any) -> None:
        """`everywhere`: what each template knows."""
        self._environment = Environment(
            loader=FunctionLoader(lambda name: _ROOM.joinpath("templates", name).read_text("utf-8")),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(everywhere)
        self._environment.filters.update(
            block=block,
            duration=duration,
            moment=moment,
            number=number,
            rate=rate,
            chip=chip,
            plural=plural,
            packed=packed,
        )

    def render(self, template: str, /, **values: Any) -> str:
        return self._environment.get_template(template).render(**values)


def _finalize(value: Any) -> Any:
    """Of each value in a template: control characters and marks of direction stand there as escapes."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def block(text: str) -> Markup:
    """Several lines, for a <pre>."""
    return escape(printable(text.replace("\r\n", "\n"), keep="\n\t"))


def packed(text: str) -> str:
    """For a link or a hidden field, which would not give back every character as it was. See `unpacked`."""
    return quote(text, safe="", errors="surrogatepass")


def unpacked(text: str) -> str:
    return unquote(text, errors="surrogatepass")


def duration(seconds: float | None) -> str:
    """As `3.2 s`, `45 s`, `12 min`, `5 h`, `3 d`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, below in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 172800)):
        if seconds < below:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def moment(at: float | None) -> Markup:
    """Of Unix seconds, in UTC, with the same for machines."""
    try:
        if at is None or not math.isfinite(at):
            raise ValueError
        when = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return Markup("–")
    return Markup('<time datetime="{}">{}</time>').format(
        when.isoformat(timespec="milliseconds"), when.strftime("%Y-%m-%d %H:%M:%S")
    )


def number(value: float | None) -> str:
    """With thin spaces between thousands; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(value: float | None) -> str:
    """Of a second."""
    if value is None:
        return "–"
    if not value:
        return "0"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else number(value)


def plural(count: float, one: str, many: str | None = None) -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


_CHIPS = {
    "consuming": "good",
    "running": "good",
    "done": "good",
    "stopped": "idle",
    "starting": "busy",
    "reloading": "busy",
    "draining": "busy",
    "backoff": "bad",
    "failed": "bad",
}


def chip(state: str) -> Markup:
    """A state. Its colour is not the only sign of it."""
    return Markup('<span class="chip {}">{}</span>').format(_CHIPS.get(state, "idle"), printable(state))
