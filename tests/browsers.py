"""A real Chromium, without a window, that notes down what it asks for and complains about."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

DEADLINE = 60.0
"""Seconds. A slow machine is no failure."""

FLAGS = (
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class Visit:
    """A browser's context, and what happens in it. Nothing may leave `origin`."""

    def __init__(self, browser: Browser, origin: str, **options: Any) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        self._context.set_default_timeout(DEADLINE * 1000)
        self.origin = origin
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._context.on("request", lambda request: self.requests.append(request.url))
        self._context.on("console", lambda message: self._heard(message.type, message.text))
        self._context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self._context.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page: Page = self._context.new_page()

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.origin + path)
        return self.page

    def end(self) -> None:
        self._context.close()
        assert self.requests
        assert [url for url in self.requests if not url.startswith(f"{self.origin}/")] == []
        assert self.complaints == []

    def _heard(self, kind: str, text: str) -> None:
        # That a page came with 401 or 404 is what a test may have asked for.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for longer: while it is there, an event loop runs in this thread, and no other can."""
    program = chromium()
    if program is None:
        reason = "there is no Chromium from apt here (on Ubuntu it is a snap): the page is not seen in a browser"
        if _is_debian():
            pytest.fail("there is no Chromium, and this is Debian: bin/test installs it, or apt-get install chromium")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


def chromium() -> str | None:
    """The program; None where there is none, or only what would install a snap."""
    program = shutil.which("chromium")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=DEADLINE)
    return program if told.returncode == 0 and "snap" not in told.stdout.lower() else None


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.exists() else []
    return "ID=debian" in lines
