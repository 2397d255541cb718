"""Questions to a master: one at a time, and an answer that comes late is nobody else's."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from domain_events.supervisor.protocol import Done, Failed, Inspect, Reload, Restart, Status, write_reply
from domain_events.web import asking
from domain_events.web.asking import Master, MasterGone, MasterSilent


class Other:
    """The master's ends: a test says what it answers, and when."""

    def __init__(self) -> None:
        self.asking, self._asking = socket.socketpair()
        self.acting, self._acting = socket.socketpair()
        for end in (self._asking, self._acting):
            end.setblocking(False)
        self.gone = 0

    async def asked(self, *, act: bool = False) -> dict[str, Any]:
        """The next request."""
        loop = asyncio.get_running_loop()
        data = await loop.sock_recv(self._acting if act else self._asking, 65536)
        request: dict[str, Any] = json.loads(data)
        return request

    async def answer(self, data: dict[str, object], *, act: bool = False) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._acting if act else self._asking, write_reply(Done(data)))

    async def fail(self, message: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self._asking, write_reply(Failed(message, 1)))

    def hang_up(self) -> None:
        self._asking.close()
        self._acting.close()

    def note_gone(self) -> None:
        self.gone += 1


@pytest.fixture
def other() -> Iterator[Other]:
    other = Other()
    yield other
    other.hang_up()


def run(other: Other, work: Callable[[Master], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        master = await Master.connect(other.asking, other.acting, other.note_gone)
        async with asyncio.timeout(20):
            await work(master)

    asyncio.run(all_of_it())


def test_who_asks_at_the_same_time_gets_one_answer(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_FRESH", 20.0)  # however slow this process is

    async def work(master: Master) -> None:
        asks = [asyncio.ensure_future(master.status()) for _ in range(20)]
        assert await other.asked() == {"command": "status"}
        await other.answer({"n": 1})
        assert await asyncio.gather(*asks) == [{"n": 1}] * 20
        assert await master.status() == {"n": 1}  # still fresh
        another = asyncio.ensure_future(master.look(Inspect("printer")))
        assert await other.asked() == {"command": "inspect", "receiver": "printer"}
        await other.answer({"n": 2})
        assert await another == {"n": 2}

    run(other, work)


def test_a_late_answer_is_nobody_elses(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.05)

    async def work(master: Master) -> None:
        with pytest.raises(MasterSilent, match="has not answered within"):
            await master.status()
        with pytest.raises(MasterSilent):
            await master.status()
        assert await other.asked() == {"command": "status"}  # once: the second waits for the first's answer
        await other.answer({"n": "late"})
        monkeypatch.setattr(asking, "PATIENCE", 10.0)
        ask = asyncio.ensure_future(master.status())
        assert await other.asked() == {"command": "status"}
        await other.answer({"n": "in time"})
        assert await ask == {"n": "in time"}

    run(other, work)


def test_what_takes_time_does_not_hold_up_questions(other: Other) -> None:
    async def work(master: Master) -> None:
        assert await master.act(Restart("printer"), 0.05) is None  # it goes on
        assert await other.asked(act=True) == {"command": "restart", "receiver": "printer"}
        ask = asyncio.ensure_future(master.status())
        await other.asked()
        await other.answer({"n": 1})
        assert await ask == {"n": 1}
        reload = asyncio.ensure_future(master.act(Reload(wait=True), 10.0))
        await other.answer({"of": "restart"}, act=True)
        assert await other.asked(act=True) == {"command": "reload", "wait": True}
        await other.answer({"of": "reload"}, act=True)
        assert await reload == Done({"of": "reload"})

    run(other, work)


def test_a_refusal_and_nonsense_are_no_answer(other: Other) -> None:
    async def work(master: Master) -> None:
        ask = asyncio.ensure_future(master.status())
        await other.asked()
        await other.fail("no")
        with pytest.raises(MasterSilent, match="no"):
            await ask
        ask = asyncio.ensure_future(master.look(Status()))
        await other.asked()
        await asyncio.get_running_loop().sock_sendall(other._asking, b"nonsense\n")
        with pytest.raises(MasterSilent, match="not JSON"):
            await ask

    run(other, work)


def test_a_master_that_hangs_up_is_gone(other: Other) -> None:
    async def work(master: Master) -> None:
        ask = asyncio.ensure_future(master.status())
        await other.asked()
        other.hang_up()
        with pytest.raises(MasterGone):
            await ask
        assert master.is_gone
        assert other.gone == 1
        with pytest.raises((MasterGone, MasterSilent)):
            await master.status()

    run(other, work)
