"""The page of a running service, as HTTP: what it shows, who may do what, and what becomes of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from domain_events import send_domain_event
from tests.acceptance.deploying import Connected, Deployed
from tests.acceptance.site import ANY, Answer, Site
from tests.acceptance.trouble import DEADLINE
from tests.brokers import Broker, Queues
from tests.processes import Processes
from tests.waiting import wait_until

TOKEN = "a-token-for-tests-only"
ENV = {"DOMAIN_EVENTS_HTTP_TOKEN": TOKEN}
WORK = "receive('work', max_retries=1)\nreceive('other')\n"
MOOD = (
    "def moody(event):\n"
    "    if not os.path.exists('well'):\n"
    "        raise ValueError(event.data.get('say', 'not well'))\n"
    "    note('moody', event)\n\n"
    "receiver.register(moody, PREFIX + 'moody', [PREFIX + 'moody.#'])\n"
)


class Visitor:
    """Somebody who is logged in."""

    def __init__(self, site: Site, token: str = TOKEN) -> None:
        self.site = site
        answer = site.ask("/login", form={"token": token, "next": "/"})
        assert answer.status == 303, answer.text
        self.login = answer
        self.cookie = {"Cookie": answer.cookie}

    def get(self, path: str) -> Answer:
        return self.site.ask(path, headers=self.cookie)

    def form_token(self) -> str:
        return hidden(self.get("/"))["form_token"]

    def send(self, path: str, headers: Mapping[str, str] | None = None, **fields: object) -> Answer:
        """A form of the page."""
        form = {"form_token": self.form_token(), **fields}
        return self.site.ask(path, form=form, headers={**self.cookie, **(headers or {})})

    def submit(self, page: Answer, **changed: object) -> Answer:
        """The last form of a page, as it stands there."""
        action = re.findall(r'<form method="post" action="([^"]+)"', page.text)[-1]
        fields = {**hidden(page), **changed}
        return self.site.ask(unescape(action), form=fields, headers=self.cookie)


def hidden(page: Answer) -> dict[str, Any]:
    """The hidden fields of a page."""
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text):
        fields.setdefault(unescape(name), []).append(unescape(value))
    return {name: values if name == "id" else values[0] for name, values in fields.items()}


@pytest.fixture
def moody(connected: Connected) -> Site:
    """A receiver that fails until the file `well` is there; with a token."""
    connected.clean("moody")
    connected.app.write("1", MOOD)
    connected.env |= ENV
    return Site(connected.start(*ANY, children=1))


@pytest.fixture
def closed(deployed: Deployed) -> Site:
    """Of two receivers without a broker; with a token."""
    deployed.app.write("1", "receive('one')\nreceive('two', processes=2)\n")
    deployed.env |= ENV
    return Site(deployed.start(*ANY, children=3))


def wait_dead(connected: Connected, count: int) -> None:
    connected.queues.wait_count(f"{connected.prefix}moody:dead", count)


# What it shows


def test_everybody_on_this_machine_may_read_where_there_is_no_token(connected: Connected) -> None:
    connected.clean("work", "other")
    connected.app.write("1", WORK)
    site = Site(connected.start(*ANY, children=2))
    name = f"{connected.prefix}work"
    page = site.ask("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for text in ("2/2 receivers", name, f"{connected.prefix}other", "consuming", "read only"):
        assert text in page.text
    assert "<form" not in page.text
    receiver = site.ask(f"/receiver?name={name}")
    assert receiver.status == 200
    assert f"{name}#0" in receiver.text
    assert site.ask("/receiver?name=nobody").status == 404
    letters = site.ask(f"/letters?receiver={name}")
    assert letters.status == 200
    assert "No dead letters." in letters.text
    assert site.ask("/letters?receiver=nobody").status == 503
    # Nothing can be changed, whatever is sent.
    for path in ("/reload", "/restart", "/letters/do", "/job/stop", "/logout"):
        assert site.ask(path, form={"receiver": name}).status == 403, path
    assert site.ask("/confirm?do=reload").status == 403
    assert site.ask("/login").status == 303


def test_numbers_exits_and_depths_are_those_of_the_service(connected: Connected) -> None:
    connected.clean("work", "other")
    connected.app.write("1", WORK)
    site = Site(connected.start(*ANY, children=2))
    connected.send("work.asked", 1, 2, 3)
    connected.send("work.asked", 4, fail=True)
    connected.send("work.asked", 5, retry=5)  # retried once, then dead
    connected.wait_handled("work", [1, 2, 3])
    name = f"{connected.prefix}work"
    connected.queues.wait_count(f"{name}:dead", 2)
    text = wait_until(
        lambda: (page := site.ask("/metrics").text) and f'kind="dead",receiver="{name}"}} 2.0' in page and page,
        DEADLINE,
        "the depth of the dead letters",
        pause=0.5,
    )
    assert f'domain_events_handled_total{{receiver="{name}"}} 3.0' in text
    assert f'domain_events_queue_depth{{kind="queue",receiver="{name}"}} 0.0' in text
    assert f'domain_events_queue_depth{{kind="retry",receiver="{name}"}} 0.0' in text  # one was there
    assert f'domain_events_queue_depth{{kind="dead",receiver="{connected.prefix}other"}} 0.0' in text
    page = site.ask("/").text
    assert re.search(rf'<a class="bad" href="/letters\?receiver={name}">2</a>', page)
    # What waits in a retry queue is found by the delay that was used.
    connected.send("work.asked", 6, retry=1)
    wait_until(lambda: "0 in all" not in site.ask(f"/receiver?name={name}").text, DEADLINE, "the counts")
    connected.wait_handled("work", [6])


@pytest.mark.owns_broker
def test_without_its_broker_a_service_lives_and_is_not_ready(
    processes: Processes, own_broker: Broker, own_queues: Queues, unique: str, tmp_path: Path
) -> None:
    connected = Connected(processes, tmp_path, own_queues, own_broker.url, unique)
    connected.clean("work", "other")
    connected.app.write("1", WORK)
    site = Site(connected.start(*ANY, children=2))
    name = f"{connected.prefix}work"
    assert site.ask("/readyz").status == 200
    assert "Depths are not known" not in site.ask("/").text
    own_broker.kill()
    # The other one may be the first to know.
    wait_until(lambda: f'"{name}"' in site.ask("/readyz").text, DEADLINE, "it is not ready")
    assert site.ask("/readyz").status == 503
    wait_until(lambda: "Depths are not known" in site.ask("/").text, DEADLINE, "the page says so")
    assert "guest:guest" not in site.ask("/").text
    metrics = site.ask("/metrics")
    assert metrics.status == 200
    assert f'queue_depth{{kind="queue",receiver="{name}"}}' not in metrics.text
    assert site.ask(f"/letters?receiver={name}").status == 503
    assert site.ask("/livez").status == 200
    own_broker.restart()
    wait_until(lambda: site.ask("/readyz").status == 200, DEADLINE, "it is ready again")
    wait_until(lambda: "Depths are not known" not in site.ask("/").text, DEADLINE, "depths are known again")


def test_the_stream_tells_what_changes(connected: Connected, moody: Site) -> None:
    visitor = Visitor(moody)
    with moody.connect() as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(_live(moody, visitor.cookie["Cookie"]))
        received = b""

        def reads(text: bytes) -> bool:
            nonlocal received
            received += connection.recv(65536)
            return text in received

        wait_until(lambda: reads(b"event: fresh"), DEADLINE, "the first")
        assert b"content-type: text/event-stream" in received
        connected.send("moody.asked", 1)
        wait_until(lambda: reads(b">1</a>"), DEADLINE, "a dead letter on the page")


def test_so_many_may_watch_and_no_more(closed: Site) -> None:
    cookie = Visitor(closed).cookie["Cookie"]
    connections = []
    try:
        for _ in range(16):
            connection = closed.connect()
            connections.append(connection)
            connection.sendall(_live(closed, cookie))
            assert connection.recv(12) == b"HTTP/1.1 200"
        refused = closed.ask("/live", headers={"Cookie": cookie})
        assert refused.status == 503
        assert closed.ask("/livez").status == 200
    finally:
        for connection in connections:
            connection.close()
    # Who goes makes room.
    wait_until(lambda: _watches(closed, cookie), DEADLINE, "a place", pause=0.5)


def _live(site: Site, cookie: str) -> bytes:
    return f"GET /live HTTP/1.1\r\nHost: {site.address}\r\nCookie: {cookie}\r\n\r\n".encode()


def _watches(site: Site, cookie: str) -> bool:
    with site.connect() as connection:
        connection.sendall(_live(site, cookie))
        return connection.recv(12) == b"HTTP/1.1 200"


def test_stacks_that_were_asked_for_are_on_the_page_of_the_receiver(closed: Site) -> None:
    visitor = Visitor(closed)
    assert "None were written." in visitor.get("/receiver?name=two").text
    closed.master.handle.send(signal.SIGUSR2)
    wait_until(lambda: visitor.get("/receiver?name=two").text.count("<details") == 2, DEADLINE, "those of both")
    page = visitor.get("/receiver?name=two").text
    assert "most recent call first" in page
    assert "two#1, pid " in page
    assert "<details" not in visitor.get("/receiver?name=nobody").text
    [pid, *_] = re.findall(r"two#0, pid (\d+)", page)
    os.kill(int(pid), signal.SIGKILL)  # they stay when the process goes
    closed.master.wait_lines("child_consuming", 4)
    assert f"two#0, pid {pid}" in visitor.get("/receiver?name=two").text


def test_the_management_plugin_is_asked_where_there_is_one(
    processes: Processes, managed_broker: Broker, unique: str, tmp_path: Path
) -> None:
    """It knows retry queues that nobody has told us of."""
    queues = Queues(managed_broker.url)
    connected = Connected(processes, tmp_path, queues, managed_broker.url, unique)
    try:
        connected.clean("work", "other")
        connected.app.write("1", WORK)
        login = managed_broker.management_url.replace("http://", "http://guest:guest@")
        connected.env["DOMAIN_EVENTS_MANAGEMENT"] = login
        site = Site(connected.start(*ANY, children=2))
        name = f"{connected.prefix}work"
        queue = f"{name}:retry:777000"
        arguments = {"x-queue-type": "quorum", "x-message-ttl": 777000}
        queues.forget_after(queue)
        queues.channel.queue_declare(queue, durable=True, arguments=arguments)
        queues.publish(queue, b"{}", exchange="")
        wanted = f'domain_events_queue_depth{{kind="retry",receiver="{name}"}} 1.0'
        wait_until(lambda: wanted in site.ask("/metrics").text, DEADLINE, "the depth", pause=0.5)
        assert f'kind="retry",receiver="{connected.prefix}other"}} 0.0' in site.ask("/metrics").text
    finally:
        processes.end()  # before the queues go: they would be made again
        queues.close()


# Who comes in


def test_with_a_token_nothing_is_read_without_it_but_health_and_numbers(closed: Site) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/static/page.css"):
        assert closed.ask(path).status == 200, path
    for path in ("/", "/receiver?name=one", "/letters?receiver=one", "/letter?receiver=one&id=1", "/live", "/job?id=1"):
        answer = closed.ask(path)
        assert answer.status == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Log in" in answer.text
        assert "two" not in answer.text
    assert closed.ask("/", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert closed.ask("/", headers={"Authorization": "Bearer something-else-than-it"}).status == 401
    assert closed.ask("/", headers={"Cookie": "domain-events-1=nonsense"}).status == 401


def test_a_session_is_a_cookie_that_scripts_and_others_do_not_get(closed: Site) -> None:
    visitor = Visitor(closed)
    cookie = visitor.login.headers["set-cookie"]
    assert cookie.startswith(f"domain-events-{closed.port}=")
    assert TOKEN not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert visitor.get("/").status == 200
    name, _, value = visitor.cookie["Cookie"].partition("=")
    for forged in (value[:-1] + ("0" if value[-1] != "0" else "1"), f"9{value}", value.partition(".")[2], ""):
        assert closed.ask("/", headers={"Cookie": f"{name}={forged}"}).status == 401, forged
    out = visitor.send("/logout")
    assert out.status == 303
    assert "Max-Age=0" in out.headers["set-cookie"]


@pytest.mark.parametrize("wanted", ["//evil.example/", "https://evil.example/", "/\\evil.example", "", "/a\r\nb: c"])
def test_a_login_leads_nowhere_else(closed: Site, wanted: str) -> None:
    answer = closed.ask("/login", form={"token": TOKEN, "next": wanted})
    assert (answer.status, answer.headers["location"]) == (303, "/")


def test_a_login_leads_where_one_wanted_to_go(closed: Site) -> None:
    page = closed.ask("/receiver?name=two")
    answer = closed.ask("/login", form={"token": TOKEN, **hidden(page)})
    assert answer.headers["location"] == "/receiver?name=two"


def test_wrong_tokens_are_refused_and_then_not_even_looked_at(closed: Site) -> None:
    for _ in range(5):
        answer = closed.ask("/login", form={"token": "not-the-right-token"})
        assert answer.status == 401
        assert "That is not the token." in answer.text
    assert closed.ask("/login", form={"token": "not-the-right-token"}).status == 429
    assert closed.ask("/login", form={"token": TOKEN}).status == 429
    assert closed.ask("/", headers={"Authorization": f"Bearer {TOKEN}"}).status == 429
    assert closed.ask("/livez").status == 200
    wait_until(lambda: closed.ask("/login", form={"token": TOKEN}).status == 303, DEADLINE, "another try", pause=0.5)


def test_a_form_from_elsewhere_changes_nothing(closed: Site) -> None:
    visitor = Visitor(closed)
    token = visitor.form_token()
    restart = {"receiver": "one", "form_token": token}

    def send(form: Mapping[str, str], **headers: str) -> int:
        return closed.ask("/restart", form=form, headers={**visitor.cookie, **headers}).status

    assert send({"receiver": "one"}) == 403
    assert send({**restart, "form_token": "0" * 64}) == 403
    assert send({**restart, "form_token": ""}) == 403
    assert send(restart, Origin="https://evil.example") == 403
    assert send(restart, Origin="null") == 403
    other = Visitor(closed).form_token()
    assert send({**restart, "form_token": other}) == 403  # of another session
    body = f"receiver=one&form_token={token}".encode()
    no_origin = {**visitor.cookie, "Content-Type": "application/x-www-form-urlencoded"}
    assert closed.ask("/restart", "POST", body=body, headers=no_origin).status == 403
    bearer = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-www-form-urlencoded"}
    evil = {**bearer, "Origin": "https://evil.example"}
    assert closed.ask("/restart", "POST", body=b"receiver=one", headers=evil).status == 403
    assert len(closed.master.lines("child_start")) == 3
    assert closed.ask("/restart", "POST", body=b"receiver=one", headers=bearer).status == 200
    closed.master.wait_lines("child_start", 4)


def test_a_form_is_a_form_and_not_too_large(closed: Site) -> None:
    visitor = Visitor(closed)
    assert closed.ask("/restart", form={"x": "y" * 70_000}, headers=visitor.cookie).status == 413
    as_json = {**visitor.cookie, "Origin": closed.url, "Content-Type": "application/json"}
    assert closed.ask("/restart", "POST", body=b"{}", headers=as_json).status == 415
    many = "&".join(f"a{n}=" for n in range(2000)).encode()
    as_form = {**as_json, "Content-Type": "application/x-www-form-urlencoded"}
    assert closed.ask("/restart", "POST", body=many, headers=as_form).status == 400
    assert closed.ask("/restart", "POST", body=b"\xff=\xfe", headers=as_form).status in (400, 403)


def test_every_answer_forbids_what_the_page_does_not_need(closed: Site) -> None:
    for path in ("/", "/livez", "/static/page.js", "/nothing"):
        headers = closed.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
    assert closed.ask("/").headers["cache-control"] == "no-store"
    page = closed.ask("/").text
    assert not re.search(r"<script(?! src=\"/static/)|<style|\sstyle=|\son\w+=|https?://", page)


def test_outside_of_loopback_numbers_need_the_token_too(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\n")
    deployed.env |= ENV
    site = Site(deployed.start("--http", "0.0.0.0:0", children=1))
    site.host = "127.0.0.1"
    assert site.ask("/livez").status == 200
    assert site.ask("/readyz").status == 200
    assert site.ask("/metrics").status == 401
    assert site.ask("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert site.ask("/").status == 401
    # Whoever comes by another name has to have the token anyway.
    assert site.ask("/livez", headers={"Host": "shop.example"}).status == 200
    for host in ("[", "[::1", "a b", "evil.example/?", "\xff"):
        assert site.ask("/receiver?name=one", headers={"Host": host}).status in (400, 401), host
        assert site.ask("/login/", headers={"Host": host}).status in (400, 404), host
    form = {"Origin": "http://[", "Content-Type": "application/x-www-form-urlencoded"}
    assert site.ask("/login", "POST", body=b"token=x", headers=form).status == 403
    assert [line for line in site.master.log() if line["process"] == site.pid] == []


def test_behind_a_proxy_it_is_asked_by_other_names(deployed: Deployed) -> None:
    deployed.app.write("1", "receive('one')\n")
    deployed.env |= ENV
    site = Site(deployed.start(*ANY, "--http-hosts", "shop.example", children=1))
    proxied = {"Host": "shop.example", "X-Forwarded-Proto": "https", "Origin": "https://shop.example"}
    assert site.ask("/livez", headers={"Host": "evil.example"}).status == 421
    assert site.ask("/", headers=proxied).status == 401
    answer = site.ask("/login", form={"token": TOKEN}, headers=proxied)
    assert answer.status == 303
    assert "Secure" in answer.headers["set-cookie"]
    page = site.ask("/", headers={**proxied, "Cookie": answer.cookie})
    form = {"receiver": "one", "form_token": hidden(page)["form_token"]}
    headers = {**proxied, "Cookie": answer.cookie}
    assert site.ask("/restart", form=form, headers={**headers, "Origin": site.url}).status == 403
    assert site.ask("/restart", form=form, headers=headers).status == 200


# What may be done


def test_a_receiver_is_restarted_and_the_code_reloaded(deployed: Deployed, closed: Site) -> None:
    visitor = Visitor(closed)
    before = deployed.running()
    page = visitor.get("/confirm?do=restart&receiver=two")
    assert "Restart" in page.text
    done = visitor.submit(page)
    assert done.status == 200
    assert "New processes have taken over." in done.text
    after = deployed.wait_running("one#0", "two#0", "two#1")
    assert {pid for pid, slot in before.items() if slot == "one#0"} < set(after)
    assert len(set(before) & set(after)) == 1
    deployed.app.write_text("raise RuntimeError('broken')\n")
    failed = visitor.submit(visitor.get("/confirm?do=reload"))
    assert failed.status == 409
    assert "broken" in failed.text
    deployed.app.write("2", "receive('three')\n")
    assert "The new code runs." in visitor.submit(visitor.get("/confirm?do=reload")).text
    # This very child has been replaced; who was logged in still is.
    deployed.master.wait_lines("http_serving", 2)
    assert "three" in visitor.get("/").text
    assert visitor.get("/confirm?do=restart&receiver=two").status == 404
    assert visitor.send("/restart", receiver="two").status == 409


# Dead letters


def test_dead_letters_are_grouped_searched_and_shown(connected: Connected, moody: Site) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202e"
    connected.send("moody.one", 1, say=hostile)
    connected.send("moody.two", 2, say="needle in it")
    wait_dead(connected, 2)
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    page = visitor.get(f"/letters?receiver={name}").text
    assert page.count('name="id"') == 2
    assert "ValueError" in page
    assert "in moody" in page  # the place
    for bad in ("<script>alert", "\x1b", "\u202e"):
        assert bad not in page
    assert r"\x1b[31m\u202e" in page
    found = visitor.get(f"/letters?receiver={name}&q=NEEDLE").text
    assert found.count('name="id"') == 1
    assert "1 of 2" in re.sub(r"<[^>]+>", "", found)
    assert "None that match." in visitor.get(f"/letters?receiver={name}&q=nothing-like-it").text
    assert "None that match." in visitor.get(f"/letters?receiver={name}&error_type=KeyError").text
    assert visitor.get(f"/letters?receiver={name}&age=hour").text.count('name="id"') == 2
    fingerprint = re.findall(r"fingerprint=([0-9a-f]{8})", page)[0]
    assert visitor.get(f"/letters?receiver={name}&fingerprint={fingerprint}").text.count('name="id"') == 2
    link = unescape(re.findall(r'href="(/letter\?[^"]+)"', found)[0])
    shown = visitor.get(link)
    assert shown.status == 200
    for text in ("needle in it", "Traceback (most recent call last)", "&#34;n&#34;: 2", "domain-events-reason"):
        assert text in shown.text
    assert visitor.get(f"/letter?receiver={name}&id=unknown").status == 404


def test_replay_brings_an_event_back_to_its_handler(connected: Connected, moody: Site) -> None:
    connected.send("moody.one", 1, 2, 3)
    wait_dead(connected, 3)
    (connected.app.folder / "well").touch()
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    page = visitor.get(f"/letters?receiver={name}").text
    first = re.findall(r'name="id" value="([^"]+)"', page)[0]
    confirm = visitor.get(f"/letters/confirm?do=replay&which=ids&receiver={name}&id={quote(first)}")
    assert "Replay 1 event" in confirm.text
    assert 'name="canary"' not in confirm.text
    done = moody.follow(visitor.submit(confirm), headers=visitor.cookie)
    assert done.status == 200
    wait_until(lambda: sum(connected.handled("moody").values()) == 1, DEADLINE, "one is handled")
    wait_dead(connected, 2)
    # All others, one first.
    confirm = visitor.get(f"/letters/confirm?do=replay&receiver={name}")
    assert "Replay 2 events" in confirm.text
    job = visitor.submit(confirm, canary="1").headers["location"]
    wait_until(lambda: 'chip good">done' in visitor.get(job).text, DEADLINE, "it is done")
    text = visitor.get(job).text
    assert '<strong id="done">2</strong>' in text
    assert connected.handled("moody") == {1: 1, 2: 1, 3: 1}
    wait_dead(connected, 0)
    line = connected.master.wait_lines("dead_letters_replayed", 2)[-1]
    assert (line["receiver"], line["n"], line["what"]) == (name, 2, "all dead letters of this receiver")


def test_a_canary_that_dies_again_stops_the_replay(connected: Connected, moody: Site) -> None:
    connected.send("moody.one", 1, 2, 3)
    wait_dead(connected, 3)
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    job = visitor.submit(visitor.get(f"/letters/confirm?do=replay&receiver={name}"), canary="1").headers["location"]
    wait_until(lambda: "Stopped:" in visitor.get(job).text, DEADLINE, "it is stopped")
    assert '<strong id="done">1</strong>' in visitor.get(job).text
    wait_dead(connected, 3)


def test_discard_takes_away_what_was_chosen_and_nothing_else(connected: Connected, moody: Site) -> None:
    connected.send("moody.one", 1, say="keep me")
    connected.send("moody.two", 2, 3, say="throw me away")
    wait_dead(connected, 3)
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    confirm = visitor.get(f"/letters/confirm?do=discard&receiver={name}&q=throw+me")
    assert "Discard 2 events" in confirm.text
    assert "gone for good" in confirm.text
    wait_dead(connected, 3)  # to look at that page changes nothing
    visitor.submit(confirm)
    wait_dead(connected, 1)
    assert "keep me" in visitor.get(f"/letters?receiver={name}").text
    # A form that has lost its ids is not about all.
    assert visitor.send("/letters/do", receiver=name, do="discard", which="ids").status == 400
    assert visitor.send("/letters/do", receiver=name, do="discard").status == 400
    assert visitor.send("/letters/do", receiver=name, do="keep", which="matching").status == 400
    assert visitor.get(f"/letters/confirm?do=discard&which=ids&receiver={name}").status == 200
    wait_dead(connected, 1)


def test_an_id_comes_back_as_it_was_whatever_is_in_it(connected: Connected, moody: Site) -> None:
    """An id may hold anything: line ends, quotes, percent signs, what looks like HTML."""
    odd = "a%41&id=b\r\n\t\"'<b>\x00\u202e é 💥"
    send_domain_event(f"{connected.prefix}moody.one", {"n": 1}, uuid_string=odd, connection_settings=connected.url)
    connected.send("moody.one", 2)
    wait_dead(connected, 2)
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    page = visitor.get(f"/letters?receiver={name}").text
    links = [unescape(link) for link in re.findall(r'href="(/letter\?[^"]+)"', page)]
    [shown] = [answer for answer in map(visitor.get, links) if "💥" in answer.text]
    assert r"a%41&amp;id=b\r\n\t&#34;&#39;&lt;b&gt;\x00\u202e é 💥" in shown.text
    confirm = visitor.get(unescape(re.findall(r'href="(/letters/confirm\?do=discard[^"]+)"', shown.text)[0]))
    visitor.submit(confirm)
    wait_dead(connected, 1)
    assert "💥" not in visitor.get(f"/letters?receiver={name}").text


def test_nobody_else_is_shut_out_while_somebody_looks(connected: Connected, moody: Site) -> None:
    """There is one look at a time; the page says so, and does not hang."""
    connected.send("moody.one", 1)
    wait_dead(connected, 1)
    visitor = Visitor(moody)
    name = f"{connected.prefix}moody"
    lock = f"domain-events.looking.{name}"
    connected.queues.channel.queue_declare(lock, exclusive=True, auto_delete=True)
    answer = visitor.get(f"/letters?receiver={name}")
    assert answer.status == 409
    assert "somebody else looks at the dead letters" in answer.text
    connected.queues.channel.queue_delete(lock)
    assert visitor.get(f"/letters?receiver={name}").status == 200
