"""Requests one after the other: a script ends once, and an answer that comes too late is nobody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain_events.transport.script import NoAnswer, Script, Step, Steps


class Requests:
    """A broker that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: list[Callable[[Any], None]] = []

    def __call__(self, what: str) -> Step:
        def request(done: Callable[[Any], None]) -> None:
            self.asked.append(what)
            self.answer.append(done)

        return request


class Ends:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def done(self, value: Any) -> None:
        self.said.append(("done", value))

    def failed(self, error: Exception) -> None:
        self.said.append(("failed", error))


def script(steps: Steps[Any], ends: Ends) -> Script[Any]:
    return Script(steps, done=ends.done, failed=ends.failed)


def two(request: Requests) -> Steps[str]:
    first = yield request("first")
    second = yield request("second")
    return first + second


def test_each_request_waits_for_the_answer_to_the_one_before() -> None:
    request, ends = Requests(), Ends()
    running = script(two(request), ends)
    running.start()
    assert request.asked == ["first"]
    request.answer[0]("a")
    assert request.asked == ["first", "second"]
    assert running.running
    assert ends.said == []
    request.answer[1]("b")
    assert ends.said == [("done", "ab")]
    assert not running.running


def test_a_script_without_requests_is_done_at_once() -> None:
    def nothing() -> Steps[int]:
        return 5
        yield

    ends = Ends()
    script(nothing(), ends).start()
    assert ends.said == [("done", 5)]


def test_a_request_that_is_answered_at_once_is_fine() -> None:
    def steps() -> Steps[int]:
        total = 0
        for n in range(10):
            total += yield lambda done, n=n: done(n)  # type: ignore[misc]
        return total

    ends = Ends()
    script(steps(), ends).start()
    assert ends.said == [("done", 45)]


def test_a_failed_request_fails_the_script() -> None:
    request, ends = Requests(), Ends()
    running = script(two(request), ends)
    running.start()
    error = RuntimeError("the channel is gone")
    running.throw(error)
    assert ends.said == [("failed", error)]
    assert not running.running


def test_the_steps_may_repair_a_failed_request() -> None:
    def steps(request: Requests) -> Steps[str]:
        try:
            yield request("declare")
        except RuntimeError:
            yield request("declare otherwise")
        return "repaired"

    request, ends = Requests(), Ends()
    running = script(steps(request), ends)
    running.start()
    running.throw(RuntimeError())
    assert request.asked == ["declare", "declare otherwise"]
    request.answer[0]("too late")
    assert ends.said == []
    request.answer[1]("ok")
    assert ends.said == [("done", "repaired")]


def test_a_second_answer_to_the_same_request_is_ignored() -> None:
    request, ends = Requests(), Ends()
    running = script(two(request), ends)
    running.start()
    request.answer[0]("a")
    request.answer[0]("a again")
    assert request.asked == ["first", "second"]
    request.answer[1]("b")
    assert ends.said == [("done", "ab")]


def test_a_cancelled_script_says_nothing_more() -> None:
    cleaned: list[str] = []

    def steps(request: Requests) -> Steps[None]:
        try:
            yield request("first")
        finally:
            cleaned.append("up")

    request, ends = Requests(), Ends()
    running = script(steps(request), ends)
    running.start()
    running.cancel()
    assert cleaned == ["up"]
    request.answer[0]("late")
    running.throw(RuntimeError("later still"))
    running.cancel()
    assert ends.said == []


def test_after_its_end_nothing_reaches_a_script() -> None:
    request, ends = Requests(), Ends()
    running = script(two(request), ends)
    running.start()
    running.throw(RuntimeError("first"))
    running.throw(RuntimeError("second"))
    request.answer[0]("late")
    assert len(ends.said) == 1


def test_a_mistake_in_the_steps_fails_the_script() -> None:
    def steps() -> Steps[None]:
        yield lambda done: done(None)
        raise ZeroDivisionError

    ends = Ends()
    script(steps(), ends).start()
    [(how, error)] = ends.said
    assert how == "failed"
    assert isinstance(error, ZeroDivisionError)


def test_a_request_that_cannot_be_made_fails_the_script() -> None:
    def refuse(_done: Callable[[Any], None]) -> None:
        raise ValueError("the channel is closed")

    def steps() -> Steps[None]:
        yield refuse

    ends = Ends()
    running = script(steps(), ends)
    running.start()
    [(how, error)] = ends.said
    assert how == "failed"
    assert str(error) == "the channel is closed"
    assert not running.running


def test_what_done_raises_is_not_taken_for_a_failure_of_the_script() -> None:
    def steps() -> Steps[None]:
        yield lambda done: done(None)

    failures: list[Exception] = []

    def done(_value: None) -> None:
        raise KeyError("in the owner's code")

    running = Script(steps(), done=done, failed=failures.append)
    with pytest.raises(KeyError):
        running.start()
    assert failures == []


class Clock:
    """Runs out when the test says so."""

    def __init__(self) -> None:
        self.timers: dict[object, tuple[float, Callable[[], None]]] = {}

    def later(self, delay: float, function: Callable[[], None]) -> object:
        handle = object()
        self.timers[handle] = delay, function
        return handle

    def cancel(self, handle: object) -> None:
        del self.timers[handle]

    def run_out(self) -> None:
        [handle] = self.timers
        _, function = self.timers.pop(handle)
        function()


def timed(steps: Steps[Any], ends: Ends, clock: Clock) -> Script[Any]:
    return Script(steps, done=ends.done, failed=ends.failed, clock=clock, patience=1.5)


def test_each_request_has_its_own_time() -> None:
    request, ends, clock = Requests(), Ends(), Clock()
    timed(two(request), ends, clock).start()
    assert [delay for delay, _ in clock.timers.values()] == [1.5]
    request.answer[0]("a")
    assert [delay for delay, _ in clock.timers.values()] == [1.5]
    request.answer[1]("b")
    assert clock.timers == {}
    assert ends.said == [("done", "ab")]


def test_a_request_that_is_not_answered_in_time_fails_the_script() -> None:
    request, ends, clock = Requests(), Ends(), Clock()
    timed(two(request), ends, clock).start()
    request.answer[0]("a")
    clock.run_out()
    [(how, error)] = ends.said
    assert how == "failed"
    assert isinstance(error, NoAnswer)
    assert str(error) == "the broker has not answered for 1.5 s"
    request.answer[1]("late")
    assert len(ends.said) == 1
    assert clock.timers == {}


@pytest.mark.parametrize("how", ["cancel", "throw"])
def test_a_script_that_has_ended_otherwise_leaves_no_timer(how: str) -> None:
    request, ends, clock = Requests(), Ends(), Clock()
    running = timed(two(request), ends, clock)
    running.start()
    if how == "cancel":
        running.cancel()
    else:
        running.throw(RuntimeError())
    assert clock.timers == {}


def test_a_request_that_is_answered_at_once_leaves_no_timer() -> None:
    def steps() -> Steps[None]:
        yield lambda done: done(None)

    ends, clock = Ends(), Clock()
    timed(steps(), ends, clock).start()
    assert (ends.said, clock.timers) == ([("done", None)], {})


def test_a_request_that_cannot_be_made_leaves_no_timer() -> None:
    def refuse(_done: Callable[[Any], None]) -> None:
        raise ValueError("the channel is closed")

    def steps() -> Steps[None]:
        yield refuse

    ends, clock = Ends(), Clock()
    timed(steps(), ends, clock).start()
    assert [how for how, _ in ends.said] == ["failed"]
    assert clock.timers == {}
