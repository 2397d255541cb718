"""Who observes, in which order they are told, and that nothing that they raise harms anybody."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from domain_events import DeadLetter, DomainEvent, MalformedEvent, NullObserver, Retry, observe
from domain_events.guarding import told
from domain_events.observers import registered
from domain_events.oversight import Suspicion
from domain_events.transport.settlement import Ack
from tests.deliveries import Desk, delivery, handling, runner
from tests.observing import Noted, Raises, observing

EVENT = DomainEvent("user.made", 1)


def tell_everything(observer: Any) -> list[str]:
    """The names of all calls, which are made in this order."""
    observer.consuming()
    observer.disconnected("gone")
    observer.started("printer", EVENT)
    observer.handled("printer", EVENT, 0.5)
    observer.failed("printer", EVENT, 0.5, ValueError(), "the handler raised ValueError")
    observer.retried("printer", EVENT, 0.5, 10.0)
    observer.dead_lettered("printer", None, 0.5, "malformed", dropped=False)
    observer.sent(EVENT, 0.5)
    observer.send_failed(EVENT, ValueError())
    return [name for name in vars(NullObserver) if not name.startswith("_")]


# Registering


def test_who_observes_is_registered_once_and_returned() -> None:
    before = registered()
    with observing(Noted()) as noted:
        assert observe(noted) is noted
        assert registered() == (*before, noted)
    assert registered() == before


class HalfAnObserver:
    def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None: ...


class AsyncObserver(NullObserver):
    async def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:  # type: ignore[override]
        ...


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Noted, r"Noted\(\), not the class"),
        (HalfAnObserver(), r"HalfAnObserver has no method consuming\(\); derive it from NullObserver"),
        (AsyncObserver(), r"AsyncObserver.handled\(\) is a coroutine, which nobody would await"),
        (print, "has no method consuming"),
    ],
)
def test_what_cannot_observe_is_refused_with_the_remedy(given: Any, says: str) -> None:
    before = registered()
    with pytest.raises(TypeError, match=says):
        observe(given)
    assert registered() == before


# Telling


def test_each_observer_is_told_everything() -> None:
    first, second = Noted(), Noted()
    names = tell_everything(told([first, second]))
    assert first.words == second.words
    assert [word[0] for word in first.words] == names


def test_without_observers_nobody_is_asked() -> None:
    assert type(told([])) is NullObserver


def test_the_first_observer_hears_first_of_what_begins_and_last_of_what_ends() -> None:
    order: list[str] = []

    class Named(NullObserver):
        def __init__(self, name: str) -> None:
            self.name = name

        def started(self, receiver: str, event: DomainEvent) -> None:
            order.append(f"{self.name} started")

        def handled(self, receiver: str, event: DomainEvent, seconds: float) -> None:
            order.append(f"{self.name} handled")

    everyone = told([Named("first"), Named("second")])
    everyone.started("printer", EVENT)
    everyone.handled("printer", EVENT, 0.5)
    assert order == ["first started", "second started", "second handled", "first handled"]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), Retry(), DeadLetter()])
def test_what_an_observer_raises_keeps_nobody_from_being_told(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    noted = Noted()
    everyone = told([Raises(error), noted, Raises(error)])
    names = tell_everything(everyone)
    assert [word[0] for word in noted.words] == names
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2 * len(names)
    assert all(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_what_an_observer_raises_with_every_event_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    everyone = told([Raises(ValueError("x"))])
    for _ in range(3):
        everyone.handled("printer", EVENT, 0.5)
    assert [record.getMessage() for record in caplog.records] == [
        "the observer Raises failed in handled(); it is logged once"
    ]


# What is told of a delivery


def told_of(handler: Any, *, is_async: bool = False, **given: Any) -> Noted:
    """What an observer hears of an event of this handler, plain or as a coroutine."""

    async def handle(event: DomainEvent) -> Any:
        return handler(event)

    noted = Noted()
    made = runner(Desk(), told=noted)
    if is_async:
        asyncio.run(made.run_async(delivery(handling(handle, **given), 1)))
    else:
        made.run(delivery(handling(handler, **given), 1))
    return noted


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "given", "reason", "then"),
    [
        (ValueError("x"), {}, "the handler raised ValueError", "dead_lettered"),
        (DeadLetter("no such user"), {}, "no such user", "dead_lettered"),
        (SystemExit(1), {}, "the handler raised SystemExit", "dead_lettered"),
        (Retry(), {}, "still failing after 0 of 0 retries", "dead_lettered"),
        (ValueError("x"), {"dead_letter": False}, "the handler raised ValueError", "dead_lettered"),
        (OSError("x"), {"retry_on": OSError, "max_retries": 1}, "the handler raised OSError", "retried"),
        (Retry(2.5), {"max_retries": 1}, "the handler asked for a retry", "retried"),
    ],
)
def test_a_failure_is_told_with_its_error_and_reason_right_before_what_becomes_of_it(
    is_async: bool, error: BaseException, given: dict[str, Any], reason: str, then: str
) -> None:
    def handle(event: DomainEvent) -> None:
        raise error

    noted = told_of(handle, is_async=is_async, **given)
    assert [word[0] for word in noted.words] == ["started", "failed", then]
    [(receiver, event, told_error, told_reason)] = noted["failed"]
    assert (receiver, event.uuid_string, told_error, told_reason) == ("printer", "id-1", error, reason)
    assert all(seconds >= 0 for seconds in noted.seconds)


def test_of_what_is_no_event_the_failure_is_told_with_the_reason() -> None:
    noted = Noted()
    runner(Desk(), told=noted).run(delivery(handling(print), body=b"hello"))
    assert [word[0] for word in noted.words] == ["failed", "dead_lettered"]
    [(_, event, error, reason)] = noted["failed"]
    assert event is None
    assert isinstance(error, MalformedEvent)
    assert reason == f"malformed: {error}"
    assert noted["dead_lettered"] == [("printer", None, reason, False)]


def test_of_a_condemned_event_the_failure_is_told_without_an_error() -> None:
    noted = Noted()

    def judge(event_id: str) -> Suspicion:
        return Suspicion(deaths=2, cause="SIGSEGV", condemned=True)

    runner(Desk(), told=noted, judge=judge).run(delivery(handling(print), 1))
    [(_, event, error, reason)] = noted["failed"]
    assert (event.uuid_string, error, reason) == ("id-1", None, "consumer died 2x (SIGSEGV)")
    assert [word[0] for word in noted.words] == ["failed", "dead_lettered"]


def test_an_event_is_settled_whatever_observers_raise() -> None:
    desk = Desk()
    seen: list[DomainEvent] = []
    everyone: Any = told([Raises(ValueError("x")), Raises(SystemExit(1))])
    runner(desk, told=everyone).run(delivery(handling(seen.append), 1))
    assert desk.settlements == [Ack()]
    assert len(seen) == 1
