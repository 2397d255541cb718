"""The page in a real Chromium: it follows what happens, repairs what it shall, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.deploying import Connected
from tests.acceptance.site import ANY, Site
from tests.acceptance.trouble import DEADLINE
from tests.browsers import Visit
from tests.waiting import wait_until

TOKEN = "a-token-for-tests-only"
IN_DOCS = ("overview-light.png", "overview-dark.png", "letters-light.png", "letter-dark.png")
APP = (
    "def badges(event):\n"
    "    if not os.path.exists('well'):\n"
    "        raise ConnectionError('the printer in ' + event.data.get('room', 'room 12') + ' does not answer')\n"
    "    note('badges', event)\n\n"
    "receiver.register(badges, PREFIX + 'badges', [PREFIX + 'badges.#'])\n"
    "receive('welcome', processes=2, max_retries=3)\n"
)

Visiting = Callable[..., Visit]

expect.set_options(timeout=DEADLINE * 1000)


@pytest.fixture
def site(connected: Connected) -> Site:
    """Of a receiver that fails until the file `well` is there, and another one."""
    connected.clean("badges", "welcome")
    connected.app.write("1", APP)
    connected.env["DOMAIN_EVENTS_HTTP_TOKEN"] = TOKEN
    return Site(connected.start(*ANY, children=3))


@pytest.fixture
def visiting(browser: Browser, site: Site) -> Iterator[Visiting]:
    visits: list[Visit] = []

    def begin(**options: Any) -> Visit:
        visits.append(Visit(browser, site.url, **options))
        return visits[-1]

    yield begin
    for visit in visits:
        visit.end()


def log_in(page: Page, token: str = TOKEN) -> None:
    page.get_by_label("Token of this supervisor").fill(token)
    page.get_by_role("main").get_by_role("button", name="Log in").click()


def wait_dead(connected: Connected, count: int) -> None:
    connected.queues.wait_count(f"{connected.prefix}badges:dead", count)


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader").get_by_text(name))


def test_only_the_right_token_opens_the_page(visiting: Visiting) -> None:
    page = visiting().open()
    log_in(page, "not-the-right-token")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    log_in(page)
    expect(page.get_by_role("heading", name="Receivers")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token of this supervisor")).to_be_visible()


def test_the_page_follows_what_happens_without_being_loaded_again(
    connected: Connected, site: Site, visiting: Visiting
) -> None:
    visit = visiting()
    page = visit.open()
    log_in(page)
    name = f"{connected.prefix}badges"
    expect(page.get_by_role("status")).to_have_text("live")
    page.evaluate("window.isStillHere = true")
    link = row(page, name).get_by_role("link", name=name)
    link.focus()
    expect(row(page, name).get_by_role("cell").nth(7)).to_have_text("0")
    connected.send("badges.asked", 1, 2)
    expect(row(page, name).get_by_role("cell").nth(7)).to_have_text("2")
    # The other one: who is killed just after an event may get it again.
    other = f"{connected.prefix}welcome"
    os.kill(connected.receiver(other)["processes"][0]["pid"], 9)
    expect(row(page, other)).to_contain_text("SIGKILL")
    assert page.evaluate("window.isStillHere")
    assert link.evaluate("link => link === document.activeElement")  # who is on it with a keyboard stays there
    # It comes back by itself when the child that serves it does.
    os.kill(site.pid, 9)
    connected.master.wait_lines("http_serving", 2)
    connected.send("badges.asked", 3)
    expect(row(page, name).get_by_role("cell").nth(7)).to_have_text("3")
    assert page.evaluate("window.isStillHere")


def test_a_dead_letter_is_found_read_and_replayed(connected: Connected, visiting: Visiting) -> None:
    connected.send("badges.printed", 1, room="room 7 <img src=x onerror=alert(1)>")
    connected.send("badges.printed", 2)
    wait_dead(connected, 2)
    page = visiting().open()
    log_in(page)
    name = f"{connected.prefix}badges"
    row(page, name).get_by_role("link", name="2", exact=True).click()  # the prefix may have a 2 as well
    expect(page.get_by_role("heading", name="Dead letters")).to_contain_text("2")
    page.get_by_label("Search").fill("room 7")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("region", name="Events").get_by_role("link").click()
    expect(page.locator("#data")).to_contain_text('"room": "room 7 <img src=x onerror=alert(1)>"')
    expect(page.locator("#traceback")).to_contain_text("ConnectionError: the printer in room 7 <img")
    assert page.locator("img[src=x]").count() == 0
    (connected.app.folder / "well").touch()
    page.get_by_role("link", name="Replay").click()
    page.get_by_role("button", name="Replay 1 event").click()
    expect(page.locator("#done")).to_have_text("1")
    wait_until(lambda: connected.handled("badges") == {1: 1}, DEADLINE, "the event is handled")
    wait_dead(connected, 1)
    page.get_by_role("link", name="Dead letters").click()
    expect(page.get_by_role("heading", name="Dead letters")).to_contain_text("1")


def test_the_chosen_are_discarded(connected: Connected, visiting: Visiting) -> None:
    connected.send("badges.printed", 1, 2, 3)
    wait_dead(connected, 3)
    page = visiting().open(f"/letters?receiver={connected.prefix}badges")
    log_in(page)
    boxes = page.get_by_role("checkbox", name=re.compile("^Choose"))
    page.get_by_role("checkbox", name="All").check()
    assert [box.is_checked() for box in boxes.all()] == [True] * 3
    boxes.first.uncheck()
    page.get_by_role("button", name="Discard the chosen").click()
    expect(page.get_by_role("main")).to_contain_text("gone for good")
    page.get_by_role("link", name="Cancel").click()
    wait_dead(connected, 3)
    page.get_by_role("button", name="Discard the chosen").click()
    expect(page.get_by_role("main")).to_contain_text("Choose some first.")  # a page that was left has forgotten them
    page.go_back()
    boxes.first.check()
    page.get_by_role("button", name="Discard the chosen").click()
    page.get_by_role("button", name="Discard 1 event").click()
    expect(page.locator("#done")).to_have_text("1")
    wait_dead(connected, 2)


def test_without_scripts_it_is_read_and_works(connected: Connected, visiting: Visiting) -> None:
    connected.send("badges.printed", 1)
    wait_dead(connected, 1)
    page = visiting(java_script_enabled=False).open()
    log_in(page)
    name = f"{connected.prefix}badges"
    expect(row(page, name)).to_contain_text("consuming")
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
    row(page, name).get_by_role("link", name=name).click()
    expect(page.get_by_role("rowheader", name=f"{name}#0")).to_be_visible()
    page.goto(page.url.partition("/receiver")[0] + f"/letters?receiver={name}")
    (connected.app.folder / "well").touch()
    page.get_by_role("link", name="Replay all of ConnectionError").click()
    page.get_by_role("button", name="Replay 1 event").click()
    expect(page.locator("#done")).to_have_text("1")
    wait_until(lambda: connected.handled("badges") == {1: 1}, DEADLINE, "the event is handled")


def test_it_can_be_read_in_the_light_and_in_the_dark(connected: Connected, visiting: Visiting, tmp_path: Path) -> None:
    """All text has the contrast of WCAG 2 AA. PAGE_SCREENSHOTS=docs/page makes the pictures of the docs anew."""
    name = f"{connected.prefix}badges"
    # First: what is killed just after an event may get it again.
    os.kill(connected.receiver(name)["processes"][0]["pid"], 9)
    connected.master.wait_lines("child_consuming", 4)
    connected.send("badges.printed", 1, 2, 3)
    connected.send("badges.lost", 4, room="room 3")
    connected.send("welcome.asked", *range(5, 30))
    connected.send("welcome.asked", 30, fail=True)
    wait_dead(connected, 4)
    connected.send("welcome.asked", 31, seconds=600)
    folder = connected.app.folder
    instead = {connected.prefix: "", str(folder): "/opt/shop", f"{folder.parent.name}/{folder.name}": "opt/shop"}
    backgrounds = set()
    for scheme in ("light", "dark"):
        visit = visiting(color_scheme=scheme)
        page = visit.open()
        assert contrasts(page) == []
        log_in(page)
        expect(page.get_by_role("status")).to_have_text("live")
        expect(row(page, name).get_by_role("cell").nth(7)).to_have_text("4")
        expect(row(page, name)).to_contain_text("SIGKILL")
        assert contrasts(page) == []
        backgrounds.add(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
        picture(page, tmp_path / f"overview-{scheme}.png", instead)
        visit.open(f"/receiver?name={name}")
        assert contrasts(page) == []
        picture(page, tmp_path / f"receiver-{scheme}.png", instead)
        visit.open(f"/letters?receiver={name}")
        assert contrasts(page) == []
        link = page.get_by_role("region", name="Events").get_by_role("link").first.get_attribute("href")
        picture(page, tmp_path / f"letters-{scheme}.png", instead)
        visit.open(str(link))
        assert contrasts(page) == []
        picture(page, tmp_path / f"letter-{scheme}.png", instead)
    assert len(backgrounds) == 2
    if wanted := os.environ.get("PAGE_SCREENSHOTS"):
        for shown in IN_DOCS:
            shutil.copy(tmp_path / shown, wanted)


def picture(page: Page, path: Path, instead: Mapping[str, str]) -> None:
    """With other texts instead of what is only so in a test."""
    page.set_viewport_size({"width": 1080, "height": 640})
    page.evaluate(
        """instead => {
            const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (texts.nextNode()) {
                for (const [text, other] of Object.entries(instead)) {
                    texts.currentNode.data = texts.currentNode.data.replaceAll(text, other);
                }
            }
        }""",
        dict(instead),
    )
    page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def contrasts(page: Page) -> list[str]:
    """Texts that are hard to read: their contrast is below 4.5 (3 for large ones)."""
    found: list[str] = page.evaluate(
        """() => {
            const parts = colour => colour.match(/[\\d.]+/g).map(Number);
            const light = colour => {
                const [r, g, b] = parts(colour).map(v => v / 255)
                    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const behind = element => {
                for (let at = element; at; at = at.parentElement) {
                    const colour = getComputedStyle(at).backgroundColor;
                    if ((parts(colour)[3] ?? 1) > 0) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const bad = [];
            for (const element of document.querySelectorAll("body *")) {
                const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join("");
                const style = getComputedStyle(element);
                if (!text || !element.getClientRects().length || style.visibility === "hidden") continue;
                const [a, b] = [light(style.color), light(behind(element))].sort((x, y) => y - x);
                const ratio = (a + 0.05) / (b + 0.05);
                if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) bad.push(`${text}: ${ratio.toFixed(2)}`);
            }
            return bad;
        }"""
    )
    return found
