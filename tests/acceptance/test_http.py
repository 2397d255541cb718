"""The child of --http under the real command: it answers, it is restarted, and it is in nobody's way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import proc
from tests.acceptance.deploying import Connected, Deployed
from tests.acceptance.site import ANY, Site
from tests.acceptance.trouble import DEADLINE
from tests.processes import Processes
from tests.waiting import wait_until

TWO = "receive('one')\nreceive('two', processes=2)\n"
TOKEN = "a-token-for-tests-only"


@pytest.fixture
def site(deployed: Deployed) -> Site:
    """Of two receivers that consume."""
    deployed.app.write("1", TWO)
    return Site(deployed.start(*ANY, children=3))


# Health


def test_it_lives_and_is_ready_when_all_receivers_consume(site: Site) -> None:
    assert (site.ask("/livez").status, site.ask("/livez").text) == (200, "ok\n")
    ready = site.ask("/readyz")
    assert ready.status == 200
    assert ready.json == {
        "ready": True,
        "master": "running",
        "consuming": 2,
        "receivers": 2,
        "not_consuming": [],
    }
    for path in ("/livez", "/readyz"):
        head = site.ask(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] != "0"
        assert site.ask(path, "POST").status in (404, 405)
    assert site.ask("/nothing").status == 404


def test_who_does_not_consume_is_named(deployed: Deployed, site: Site) -> None:
    assert deployed.operate("scale", "two=0")[0] == 0
    # Until then it drains.
    stopped = [{"name": "two", "state": "stopped"}]
    wait_until(lambda: site.ask("/readyz").json["not_consuming"] == stopped, DEADLINE, "two is stopped")
    ready = site.ask("/readyz")
    assert (ready.status, ready.json["ready"], ready.json["consuming"]) == (503, False, 1)
    assert site.ask("/livez").status == 200


def test_a_master_that_stands_still_does_not_live(deployed: Deployed, site: Site) -> None:
    deployed.master.handle.send(signal.SIGSTOP)
    try:
        answer = site.ask("/livez")
        assert answer.status == 503
        assert "has not answered within 5 s" in answer.text
        assert site.ask("/readyz").status == 503
    finally:
        deployed.master.handle.send(signal.SIGCONT)
    wait_until(lambda: site.ask("/livez").status == 200, DEADLINE, "it lives again")


def test_it_answers_during_a_drain_and_ends_with_the_master(connected: Connected) -> None:
    connected.clean("slow")
    connected.app.write("1", "receive('slow')\n")
    site = Site(connected.start(*ANY, "--grace", "600", children=1))
    go_on = connected.send_long("slow.asked", 1)
    connected.master.handle.terminate()
    connected.master.wait_lines("stop_begin")
    answer = site.ask("/readyz")
    assert (answer.status, answer.json["master"]) == (503, "draining")
    assert site.ask("/livez").status == 200
    go_on.touch()
    assert connected.master.handle.wait(DEADLINE) == 0
    assert connected.handled("slow") == {1: 1}
    assert connected.master.handle.group() == []


# Its life


def test_it_is_a_child_of_its_own_with_a_title_and_little_that_is_open(deployed: Deployed, site: Site) -> None:
    assert proc.parent(site.pid) == deployed.pid
    assert proc.title(site.pid) == f"domain-events: http {site.address}"
    assert Path(f"/proc/{site.pid}/comm").read_text().strip() == "http"
    score = int(Path(f"/proc/{site.pid}/oom_score_adj").read_text())
    assert score == int(Path(f"/proc/{deployed.pid}/oom_score_adj").read_text()) + 100
    mine = set(proc.descriptors(site.pid).values())
    control = {
        row.split()[6] for row in Path("/proc/net/unix").read_text().splitlines() if str(deployed.control) in row
    }
    assert control
    assert not mine & {f"socket:[{inode}]" for inode in control}
    # No receiver has anything of it, neither where it listens nor what it hears from the master.
    others = {
        name
        for pid in deployed.running()
        for name in proc.descriptors(pid).values()
        if name.startswith(("socket:", "pipe:"))
    }
    theirs = {name for name in mine if name.startswith(("socket:", "pipe:"))} - set(_standard(site.pid))
    assert not theirs & others


def _standard(pid: int) -> list[str]:
    return [name for fd, name in proc.descriptors(pid).items() if fd <= 2]


def test_it_comes_again_when_it_is_killed_and_nothing_is_left_behind(deployed: Deployed, site: Site) -> None:
    files = deployed.master.open_files()
    receivers = deployed.running()
    for n in range(1, 4):
        pid = site.pid
        os.kill(pid, signal.SIGKILL)
        line = deployed.master.wait_lines("http_exit", n)[-1]
        assert (line["pid"], line["signal"]) == (pid, "SIGKILL")
        deployed.master.wait_lines("http_serving", n + 1)
        assert site.ask("/livez").status == 200
    wait_until(lambda: deployed.master.open_files() <= files, DEADLINE, f"{files} open files")
    assert deployed.running() == receivers
    assert deployed.stop() == 0  # the deaths of this child are nobody's exit code


def test_nobody_is_refused_while_it_is_away(deployed: Deployed, site: Site) -> None:
    os.kill(site.pid, signal.SIGKILL)
    assert site.ask("/livez").status == 200
    deployed.master.wait_lines("http_serving", 2)


def test_it_dies_with_its_master(deployed: Deployed, site: Site) -> None:
    deployed.master.handle.kill()
    wait_until(lambda: not proc.lives(site.pid), DEADLINE, "the end of the child")
    with suppress(ConnectionRefusedError), site.connect() as connection:
        raise AssertionError(f"somebody listens: {connection}")


def test_it_has_no_part_in_being_ready_or_failing(deployed: Deployed) -> None:
    """Its port is somebody else's: said at ERROR with the address, tried again, and the receivers work."""
    deployed.app.write("1", TWO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        deployed.start("--http", str(port), "--backoff", "0.05:0.3", children=3)
        [line, *_] = deployed.master.wait_lines("http_failed", 2)
        assert (line["level"], line["address"]) == ("ERROR", f"127.0.0.1:{port}")
        assert line["reason"] == "it cannot be bound: Address already in use"
        code, _, _ = deployed.operate("status", "--json")
        assert code == 0
        other.close()
    site = Site(deployed.master)
    assert site.ask("/readyz").status == 200
    assert deployed.stop() == 0


def test_a_reload_brings_a_child_that_knows_the_new_receivers(deployed: Deployed, site: Site) -> None:
    before = site.pid
    deployed.app.write("2", "receive('three')\n")
    deployed.reload()
    deployed.master.wait_lines("http_serving", 2)
    assert site.pid != before
    assert site.ask("/readyz").json["receivers"] == 1
    assert not proc.lives(before)
    assert proc.parent(site.pid) == deployed.pid
    os.kill(site.pid, signal.SIGKILL)  # also one that comes from a loader comes again
    deployed.master.wait_lines("http_serving", 3)
    assert site.ask("/livez").status == 200
    deployed.app.write_text("raise RuntimeError('broken')\n")
    deployed.reload_fails()
    assert site.ask("/livez").status == 200
    assert len(site.pids) == 3  # broken code changes nothing
    assert deployed.stop() == 0


def test_nobody_asks_and_nothing_happens(deployed: Deployed, site: Site) -> None:
    """Neither it nor its master wakes up for it."""
    assert site.ask("/livez").status == 200
    wait_until(lambda: site.open_files() == len(os.listdir(f"/proc/{site.pid}/fd")), DEADLINE, "a quiet moment")
    wait_until(lambda: _sleeps(site.pid), DEADLINE, "it sleeps", pause=0.0)
    wait_until(lambda: _sleeps(deployed.pid), DEADLINE, "the master sleeps", pause=0.0)


def _sleeps(pid: int) -> bool:
    """For two seconds on end."""
    before = proc.waits(pid)
    time.sleep(2.0)
    return proc.waits(pid) == before


def test_one_that_is_stopped_keeps_nobody_from_ending(deployed: Deployed, site: Site) -> None:
    os.kill(site.pid, signal.SIGSTOP)
    assert deployed.operate("status")[0] == 0
    assert deployed.stop() == 0


def test_stacks_are_written_on_request(deployed: Deployed, site: Site) -> None:
    deployed.master.handle.send(signal.SIGUSR2)
    text = f"stacks of http (pid {site.pid})"
    wait_until(lambda: deployed.master.messages(text), DEADLINE, text)


# What it refuses


@pytest.mark.parametrize("text", ["nonsense", "127.0.0.1:", "::1:80", "host:99999", "http://localhost:80", "a b:80"])
def test_an_address_that_is_none_is_a_usage_error(deployed: Deployed, text: str) -> None:
    deployed.app.write("1", TWO)
    deployed.start("--http", text, children=0)
    assert deployed.master.handle.wait(DEADLINE) == 64
    assert "--http" in deployed.master.handle.output()


def test_without_a_token_it_is_not_to_be_reached_from_outside(deployed: Deployed) -> None:
    deployed.app.write("1", TWO)
    deployed.start("--http", "0.0.0.0:0", children=0)
    assert deployed.master.handle.wait(DEADLINE) == 78
    assert "this needs a token" in deployed.master.handle.output()
    assert not deployed.master.lines("child_start")


def test_a_missing_extra_is_named_before_anything_is_forked(deployed: Deployed, processes: Processes) -> None:
    deployed.app.write("1", TWO)
    program = (
        "import sys; sys.modules['uvicorn'] = None; from domain_events.cli.supervisor import main; "
        "sys.exit(main(['app', '--http', '0']))"
    )
    handle = processes.start([sys.executable, "-c", program], cwd=deployed.app.folder)
    assert handle.wait(DEADLINE) == 78
    assert "--http needs uvicorn, which is not installed: pip install 'domain-events[http]'" in handle.output()
    assert "child_start" not in handle.output()


def test_without_http_nothing_of_it_is_imported(deployed: Deployed) -> None:
    deployed.app.write("1", TWO)
    looks = (
        "import sys, domain_events.cli.supervisor\n"
        "print([name for name in ('starlette', 'uvicorn', 'jinja2', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "[]\n"


def test_another_host_is_not_served_on_loopback(site: Site) -> None:
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example", "", "[::2]"):
        assert site.ask("/readyz", headers={"Host": host}).status == 421, host
    for host in (f"localhost:{site.port}", "LOCALHOST", "127.0.0.1", "[::1]:80"):
        assert site.ask("/readyz", headers={"Host": host}).status == 200, host


@pytest.mark.parametrize("head", [b"GET /", b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "])
def test_a_head_that_does_not_end_is_refused(site: Site, head: bytes) -> None:
    with site.connect() as connection, suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(head)
        for _ in range(1000):  # 16 MB, in small pieces
            connection.sendall(b"x" * 16_000)
        raise AssertionError("all of it was taken")
    assert site.ask("/livez").status == 200


def test_who_does_not_speak_http_is_not_worth_a_line(site: Site) -> None:
    said = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /%zz%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"BREW /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf a form",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\r\n" * 1000,
        b"\x00" * 5000,
    )
    for data in said:
        with site.connect() as connection, suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)
    assert site.ask("/livez").status == 200
    assert [line for line in site.master.log() if line["process"] == site.pid] == []
    assert len(site.pids) == 1


def test_a_health_check_may_speak_an_older_http(site: Site) -> None:
    with site.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_who_asks_and_does_not_read_is_hung_up_on(site: Site) -> None:
    """Until the kernel takes no more, and a little longer."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((site.host, site.port))
        connection.settimeout(DEADLINE)
        request = b"GET /static/page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(100_000):
                connection.sendall(request)
            raise AssertionError("all of it was taken")
    assert site.ask("/livez").status == 200


def test_slow_clients_harm_nobody(site: Site) -> None:
    """More than it serves at a time, each of which has begun a request and says nothing more."""
    connections = []
    try:
        for _ in range(130):
            connection = site.connect()
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            connections.append(connection)
        assert site.ask("/livez").status == 200
        for connection in connections:  # each is hung up on
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    finally:
        for connection in connections:
            connection.close()
    assert site.ask("/livez").status == 200
    wait_until(lambda: site.open_files() < 30, DEADLINE, "their descriptors are given back")
