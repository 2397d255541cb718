"""The way of one delivery, without a broker: what is asked and told in which order, and how it is settled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from domain_events import DeadLetter, DomainEvent, Retry
from domain_events.gate import Gate
from domain_events.guarding import guarded
from domain_events.oversight import Oversight, Suspicion
from domain_events.registration import Registration
from domain_events.running import Runner
from domain_events.stopping import Stop
from domain_events.surroundings import Surroundings
from domain_events.transport.settlement import Ack, Copy, GiveBack, Settlement
from domain_events.transport.subscription import Delivery
from domain_events.transport.wire import LARGE
from tests.deliveries import Desk, Told, delivery, handling, runner
from tests.waiting import wait_until


def in_loop(made: Runner, *registrations_and_data: tuple[Registration, Any]) -> None:
    """Handles these events in one event loop, all at the same time."""

    async def run() -> None:
        await asyncio.gather(*(made.run_async(delivery(*each)) for each in registrations_and_data))

    asyncio.run(run())


def headers(settlement: Settlement) -> dict[str, Any]:
    assert isinstance(settlement, Copy)
    return {name.removeprefix("domain-events-"): value for name, value in (settlement.properties.headers or {}).items()}


def raises(error: BaseException) -> Callable[[DomainEvent], None]:
    def handle(event: DomainEvent) -> None:
        raise error

    return handle


def raises_async(error: BaseException) -> Callable[[DomainEvent], Coroutine[Any, Any, None]]:
    async def handle(event: DomainEvent) -> None:
        await asyncio.sleep(0)
        raise error

    return handle


def settle(handler: Callable[[DomainEvent], Any], told: Told | None = None, **given: Any) -> Settlement:
    """How the event of `handler` is settled."""
    desk = Desk()
    registration = handling(handler, **given)
    made = runner(desk, told=told)
    if registration.is_async:
        in_loop(made, (registration, 1))
    else:
        made.run(delivery(registration, 1))
    assert desk.in_hand == []
    [settlement] = desk.settlements
    return settlement


# How handlers end


async def succeeds_async(event: DomainEvent) -> int:
    await asyncio.sleep(0)
    return 1


@pytest.mark.parametrize("handler", [lambda _event: 1, succeeds_async, functools.partial(succeeds_async)])
def test_a_handler_that_returns_has_handled_its_event(handler: Any) -> None:
    told = Told()
    assert settle(handler, told) == Ack()
    assert told.words == [("started", "id-1"), ("handled", "id-1")]


@pytest.mark.parametrize("raising", [raises, raises_async])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("x"), "the handler raised ValueError"),
        (SystemExit(0), "the handler raised SystemExit"),
        (KeyboardInterrupt(), "the handler raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "the handler raised CancelledError"),
        (GeneratorExit(), "the handler raised GeneratorExit"),
        (DeadLetter("no such user"), "no such user"),
        (TimeoutError("of its own"), "the handler raised TimeoutError"),
        (Retry(), "still failing after 0 of 0 retries"),
    ],
)
def test_whatever_a_handler_raises_is_a_failure_of_its_event(
    raising: Callable[[BaseException], Any], error: BaseException, reason: str
) -> None:
    told = Told()
    settlement = settle(raising(error), told)
    assert headers(settlement)["reason"] == reason
    assert told.words == [("started", "id-1"), ("dead-lettered", reason)]


@pytest.mark.parametrize("raising", [raises, raises_async])
def test_a_traceback_shows_the_handler_and_nothing_of_ours(raising: Callable[[BaseException], Any]) -> None:
    traceback = headers(settle(raising(ValueError("x"))))["traceback"]
    assert "in handle" in traceback
    assert "domain_events/" not in traceback.replace(__file__, "")


@pytest.mark.parametrize("raising", [raises, raises_async])
def test_a_retry_is_a_retry_in_every_kind_of_handler(raising: Callable[[BaseException], Any]) -> None:
    told = Told()
    settlement = settle(raising(Retry(2.5)), told, max_retries=1)
    assert isinstance(settlement, Copy)
    assert settlement.queue.name == "printer:retry:2500"
    assert told.words[1] == ("retried", "id-1")


async def coroutine() -> None: ...


class Promise:
    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.filterwarnings("error:coroutine")  # "... was never awaited"
@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (lambda _event: coroutine(), "returned a coroutine that nobody would await; make it `async def`"),
        (lambda _event: Promise(), "returned a Promise that nobody would await; make it `async def`"),
    ],
)
def test_an_awaitable_that_a_plain_handler_returns_is_a_failure_and_is_not_dropped(handler: Any, says: str) -> None:
    told = headers(settle(handler))
    assert told["error-type"] == "TypeError"
    assert says in told["error-message"]


@pytest.mark.filterwarnings("error:coroutine")
def test_a_coroutine_that_an_async_handler_returns_is_a_failure_too() -> None:
    async def handle(event: DomainEvent) -> Any:
        return coroutine()

    assert "`return await` it" in headers(settle(handle))["error-message"]


def test_what_is_no_event_reaches_no_handler_of_any_kind() -> None:
    desk, told, seen = Desk(), Told(), []
    made = runner(desk, told=told)

    async def handle(event: DomainEvent) -> None:
        seen.append(event)

    made.run(delivery(handling(seen.append), body=b"hello"))
    asyncio.run(made.run_async(delivery(handling(handle), body=b"hello")))
    assert all(headers(settlement)["reason"].startswith("malformed: ") for settlement in desk.settlements)
    assert [word for word, _ in told.words] == ["dead-lettered"] * 2
    assert seen == []


# timeout= of a coroutine


async def sleeps(event: DomainEvent) -> None:
    await asyncio.sleep(60)


def test_a_coroutine_is_cancelled_after_its_timeout_and_has_failed_with_timeout_error() -> None:
    told = headers(settle(sleeps, timeout=0.01))
    assert told["reason"] == "the handler did not end within 0.01 s"
    assert told["error-type"] == "TimeoutError"
    assert told["error-message"] == "the handler did not end within 0.01 s"
    assert "in sleeps" in told["traceback"]  # where it was


def test_a_timeout_may_be_retried_as_any_error() -> None:
    settlement = settle(sleeps, timeout=0.01, retry_on=TimeoutError, max_retries=3)
    assert isinstance(settlement, Copy)
    assert ":retry:" in settlement.queue.name


def test_a_coroutine_that_ends_well_after_its_cancellation_has_handled_its_event() -> None:
    async def handle(event: DomainEvent) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    assert settle(handle, timeout=0.01) == Ack()


def test_a_timeout_that_the_handler_itself_has_met_is_not_ours() -> None:
    async def handle(event: DomainEvent) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    assert headers(settle(handle, timeout=60))["reason"] == "the handler raised TimeoutError"


def test_who_cancels_a_handler_fails_its_event_alone() -> None:
    desk = Desk()

    async def handle(event: DomainEvent) -> None:
        if event.data == 1:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if task.get_name() != "main":
                    task.cancel()
        await asyncio.sleep(0.01)

    async def run() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        made = runner(desk)
        tasks = [asyncio.create_task(made.run_async(delivery(handling(handle), n))) for n in (2, 1, 3)]
        await asyncio.wait(tasks)

    asyncio.run(run())
    reasons = {
        event.body: headers(settlement)["reason"] if isinstance(settlement, Copy) else "handled"
        for event, settlement in desk.settled
    }
    assert sorted(reasons.values()) == ["handled", "the handler raised CancelledError"]  # 3 had not begun


# Contexts

VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("VARIABLE", default=None)


def test_each_event_has_a_fresh_context_with_what_was_set_before() -> None:
    seen: list[Any] = []

    def handle(event: DomainEvent) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(event.data)

    token = VARIABLE.set("before")
    made = runner(Desk())
    VARIABLE.reset(token)
    for n in range(3):
        made.run(delivery(handling(handle), n))
    assert seen == ["before"] * 3
    assert VARIABLE.get() is None


# Surroundings


def around(words: list[str]) -> Surroundings:
    @contextlib.contextmanager
    def plain() -> Iterator[None]:
        words.append("in")
        yield
        words.append("out")

    @contextlib.asynccontextmanager
    async def asynchronous() -> AsyncIterator[None]:
        words.append("in")
        yield
        await asyncio.sleep(0.01)
        words.append("out")

    return Surroundings(plain=plain, asynchronous=asynchronous, thread_ends=lambda: words.append("end"))


def test_surroundings_are_around_each_call_also_of_one_that_fails() -> None:
    words: list[str] = []
    made = runner(Desk(), surroundings=[around(words)])

    def handle(event: DomainEvent) -> None:
        words.append("handler")
        raise ValueError

    async def handle_async(event: DomainEvent) -> None:
        handle(event)

    made.run(delivery(handling(handle)))
    in_loop(made, (handling(handle_async), 1))
    made.end_thread()
    assert words == ["in", "handler", "out"] * 2 + ["end"]


def test_an_event_that_is_handled_stays_so_when_its_task_is_cancelled_afterwards() -> None:
    desk, words = Desk(), list[str]()

    async def handle(event: DomainEvent) -> None:
        words.append("handler")

    async def run() -> None:
        made = runner(desk, surroundings=[around(words)])
        task = asyncio.create_task(made.run_async(delivery(handling(handle))))
        while "handler" not in words:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert desk.settlements == [Ack()]


# Judgement


def suspicion(*, condemned: bool) -> Suspicion:
    return Suspicion(deaths=2, cause="SIGSEGV", stacks="Thread 0x1:\n  in native code", condemned=condemned)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_condemned_event_is_set_aside_with_cause_and_stacks_and_its_handler_is_not_called(is_async: bool) -> None:
    desk, told, asked, seen = Desk(), Told(), list[str](), list[DomainEvent]()

    async def handle_async(event: DomainEvent) -> None:
        seen.append(event)

    def judge(event_id: str) -> Suspicion:
        asked.append(event_id)
        return suspicion(condemned=True)

    registration = handling(handle_async if is_async else seen.append, max_retries=3)
    made = runner(desk, told=told, judge=judge)
    if is_async:
        in_loop(made, (registration, 1))
    else:
        made.run(delivery(registration, 1))
    [settlement] = desk.settlements
    assert isinstance(settlement, Copy)
    assert settlement.queue.name == "printer:dead"
    found = headers(settlement)
    assert found["reason"] == "consumer died 2x (SIGSEGV)"
    assert found["error-type"] == "ConsumerDied"
    assert found["error-message"] == "SIGSEGV"
    assert found["traceback"] == "Thread 0x1:\n  in native code"
    assert found["retries"] == 0
    assert (asked, seen, told.words) == (["id-1"], [], [("dead-lettered", "consumer died 2x (SIGSEGV)")])


def test_a_condemned_event_of_a_receiver_without_dead_letters_is_logged_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, told = Desk(), Told()
    made = runner(desk, told=told, judge=lambda _id: suspicion(condemned=True))
    made.run(delivery(handling(print, dead_letter=False), 1))
    assert desk.settlements == [Ack()]
    assert told.words == [("dropped", "consumer died 2x (SIGSEGV)")]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "drops event id-1 (user.made): consumer died 2x (SIGSEGV)" in record.getMessage()


def test_the_stacks_of_a_death_are_cut_as_tracebacks_are() -> None:
    desk = Desk()
    long = Suspicion(deaths=2, cause="timeout 2.0s", stacks="x" * 100_000, condemned=True)
    runner(desk, judge=lambda _id: long).run(delivery(handling(print)))
    assert len(headers(desk.settlements[0])["traceback"]) == 16_000


def test_the_judge_is_asked_before_the_handler_starts_and_only_about_events() -> None:
    words: list[str] = []

    class Tells(Told):
        def started(self, receiver: str, event: DomainEvent) -> None:
            words.append("started")

    def judge(event_id: str) -> None:
        words.append(event_id)

    made = runner(Desk(), told=Tells(), judge=judge)
    made.run(delivery(handling(lambda _event: words.append("handler")), 1))
    made.run(delivery(handling(print), body=b"hello"))
    assert words == ["id-1", "started", "handler"]


def test_a_judge_that_fails_is_logged_once_and_events_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def judge(event_id: str) -> None:
        raise KeyError(event_id)

    desk = Desk()
    oversight = guarded(Oversight(forced=lambda _in_hand: None, judge=judge, beat=lambda: None, beat_every=1.0))
    made = runner(desk, judge=oversight.judge)
    for n in range(3):
        made.run(delivery(handling(lambda _event: None), n))
    assert desk.settlements == [Ack()] * 3
    [record] = caplog.records
    assert record.exc_info is not None


class Crowd:
    """A handler that is in several threads at once, and knows with whom it was there."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.together: dict[int, set[int]] = {}
        self.go_on: dict[int, threading.Event] = {}

    def __call__(self, event: DomainEvent) -> None:
        self.inside.add(event.data)
        for other in list(self.inside):
            self.together.setdefault(other, set()).update(self.inside)
        self.go_on.setdefault(event.data, threading.Event()).wait(30)
        self.inside.remove(event.data)

    def let_go(self, *data: int) -> None:
        for each in data:
            self.go_on.setdefault(each, threading.Event()).set()


def test_a_suspect_is_handled_when_no_other_event_is_in_hand() -> None:
    desk, crowd, gate = Desk(), Crowd(), Gate()
    made = runner(desk, gate=gate, judge=lambda event_id: suspicion(condemned=False) if event_id == "id-2" else None)
    for n in (0, 1):
        threading.Thread(target=made.run, args=(delivery(handling(crowd), n),), daemon=True).start()
    wait_until(lambda: crowd.inside == {0, 1}, what="two at a time")
    for n in (2, 3):
        threading.Thread(target=made.run, args=(delivery(handling(crowd), n),), daemon=True).start()
        wait_until(lambda n=n: len(gate._waiting) == n - 1, what=f"the delivery {n} at the gate")  # type: ignore[misc]
    crowd.let_go(0)
    desk.wait(1)
    assert crowd.inside == {1}
    crowd.let_go(1)
    wait_until(lambda: crowd.inside == {2}, what="the suspect alone")
    crowd.let_go(2)
    wait_until(lambda: crowd.inside == {3}, what="the one that waited behind it")
    crowd.let_go(3)
    desk.wait(4)
    assert crowd.together == {0: {0, 1}, 1: {0, 1}, 2: {2}, 3: {3}}


def test_a_suspect_that_is_a_coroutine_is_alone_too_and_cannot_be_made_to_lose_its_place() -> None:
    desk, inside, most = Desk(), set[int](), dict[int, int]()

    async def handle(event: DomainEvent) -> None:
        inside.add(event.data)
        for other in inside:
            most[other] = max(most.get(other, 0), len(inside))
        await asyncio.sleep(0.02)
        inside.remove(event.data)

    async def run() -> None:
        made = runner(
            desk, gate=Gate(), judge=lambda event_id: suspicion(condemned=False) if event_id == "id-2" else None
        )
        tasks = [asyncio.create_task(made.run_async(delivery(handling(handle), n))) for n in range(6)]
        while len(desk.in_hand) < 6:
            await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.wait(tasks)

    asyncio.run(run())
    assert desk.settlements == [Ack()] * 6
    assert most == {0: 2, 1: 2, 2: 1, 3: 3, 4: 3, 5: 3}


def test_what_waits_at_the_gate_when_a_stop_comes_is_given_back_unhandled() -> None:
    desk, crowd, stop, gate, told = Desk(), Crowd(), Stop(), Gate(), Told()
    made = runner(desk, gate=gate, stop=stop, told=told, judge=lambda _id: suspicion(condemned=False))
    for n in range(3):
        threading.Thread(target=made.run, args=(delivery(handling(crowd), n),), daemon=True).start()
    wait_until(lambda: crowd.inside and len(gate._waiting) == 2, what="one inside, two at the gate")
    stop.request()
    gate.open()
    assert desk.wait(2) == [GiveBack(), GiveBack()]
    [first] = crowd.inside
    crowd.let_go(first)
    assert desk.wait(3)[2] == Ack()
    assert told.words == [("started", f"id-{first}"), ("handled", f"id-{first}")]
    stop.close()


def test_nothing_begins_after_a_stop() -> None:
    desk, told, stop = Desk(), Told(), Stop()
    stop.request()
    made = runner(desk, stop=stop, told=told)
    made.run(delivery(handling(print)))
    in_loop(made, (handling(sleeps), 1))
    assert desk.settlements == [GiveBack(), GiveBack()]
    assert told.words == []
    stop.close()


# Forks


def test_a_process_that_a_handler_forked_settles_nothing_when_it_comes_back() -> None:
    desk = Desk()
    runner_ = runner(desk)
    parent = os.getpid()

    def handle(event: DomainEvent) -> None:
        child = os.fork()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    try:
        runner_.run(delivery(handling(handle)))
    except SystemExit as error:
        if os.getpid() != parent:
            os._exit(7 if not desk.settled and "came back from the handler" in str(error) else 8)
        raise
    assert desk.settlements == [Ack()]


# Bodies so large that reading them may be the end


def large(registration: Registration, body: bytes, message_id: str | None) -> Delivery:
    made = delivery(registration, body=body + b" " * LARGE)
    made.properties.message_id = message_id
    return made


def test_a_large_body_is_in_hand_while_it_is_read() -> None:
    desk, words = Desk(), list[tuple[str, str]]()

    def reading(event_id: str) -> Callable[[], object]:
        words.append(("reading", event_id))
        return lambda: words.append(("read", event_id))

    registration = handling(lambda event: words.append(("handler", event.uuid_string)))
    made = runner(desk, reading=reading)
    made.run(delivery(registration, 1))
    assert words == [("handler", "id-1")]
    words.clear()
    made.run(large(registration, DomainEvent("a.b", 1, uuid_string="id-2").encode(), "id-2"))
    assert words == [("reading", "id-2"), ("read", "id-2"), ("handler", "id-2")]
    words.clear()
    made.run(large(registration, b"no event", "id-3"))
    assert words == [("reading", "id-3"), ("read", "id-3")]
    assert [type(settlement).__name__ for settlement in desk.settlements] == ["Ack", "Ack", "Copy"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_large_body_whose_reading_has_killed_is_not_read_again(is_async: bool) -> None:
    desk, told, forgiven = Desk(), Told(), list[str]()

    async def handle_async(event: DomainEvent) -> None: ...

    def reading(event_id: str) -> Callable[[], object]:
        raise AssertionError(event_id)

    registration = handling(handle_async if is_async else lambda _event: None)
    made = runner(
        desk, told=told, judge=lambda _id: suspicion(condemned=True), forgive=forgiven.append, reading=reading
    )
    for message_id in ("an-id", None):
        letter = large(registration, b"no event", message_id)
        if is_async:
            asyncio.run(made.run_async(letter))
        else:
            made.run(letter)
    for settlement in desk.settlements:
        assert isinstance(settlement, Copy)
        assert headers(settlement)["reason"] == "consumer died 2x (SIGSEGV)"
    assert told.words == [("dead-lettered", "consumer died 2x (SIGSEGV)")] * 2
    assert forgiven[0] == "an-id"
    assert len(forgiven[1]) == 36  # made from the body
