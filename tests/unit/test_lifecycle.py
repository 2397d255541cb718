"""Hooks of an application: in which order they run, and what becomes of their errors."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from domain_events.lifecycle import HookFailed, Lifecycle
from tests.waiting import wait_until


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def lifecycle(calls: list[str]) -> Lifecycle:
    """With two hooks of each kind, which write themselves down."""
    made = Lifecycle()
    for n in (1, 2):
        for kind in ("before_fork", "child_started", "child_stopping"):
            getattr(made, kind)(lambda word=f"{kind} {n}": calls.append(word))
    return made


def fail() -> None:
    raise ValueError("no connection")


def leave() -> None:
    raise SystemExit(3)


def test_hooks_run_in_the_order_of_registration_and_stopping_ones_in_reverse(
    lifecycle: Lifecycle, calls: list[str]
) -> None:
    lifecycle.run_before_fork()
    lifecycle.run_child_started()
    lifecycle.run_child_stopping()
    assert calls == [
        "before_fork 1",
        "before_fork 2",
        "child_started 1",
        "child_started 2",
        "child_stopping 2",
        "child_stopping 1",
    ]


@pytest.mark.parametrize("kind", ["before_fork", "child_started", "child_stopping"])
def test_a_decorated_function_stays_what_it_was(kind: str) -> None:
    assert getattr(Lifecycle(), kind)(fail) is fail


@pytest.mark.parametrize("kind", ["before_fork", "child_started"])
@pytest.mark.parametrize("hook", [fail, leave])
def test_a_hook_that_raises_is_named_and_the_next_is_not_called(
    kind: str, hook: Callable[[], None], calls: list[str]
) -> None:
    lifecycle = Lifecycle()
    getattr(lifecycle, kind)(hook)
    getattr(lifecycle, kind)(lambda: calls.append("next"))
    with pytest.raises(HookFailed, match=f"^the {kind} hook {__name__}.{hook.__name__} failed: ") as failed:
        getattr(lifecycle, f"run_{kind}")()
    assert type(failed.value.__cause__) in (ValueError, SystemExit)
    assert calls == []


@pytest.mark.parametrize("hook", [fail, leave])
def test_a_stopping_hook_that_raises_is_logged_with_its_traceback_and_the_others_are_called(
    hook: Callable[[], None], lifecycle: Lifecycle, calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    lifecycle.child_stopping(hook)
    lifecycle.run_child_stopping()
    assert calls == ["child_stopping 2", "child_stopping 1"]
    [record] = caplog.records
    assert hook.__name__ in record.getMessage()
    assert f"in {hook.__name__}" in caplog.text


async def coroutine() -> None: ...


def generator() -> Iterator[None]:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


class Callable_:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize("kind", ["before_fork", "child_started", "child_stopping"])
@pytest.mark.parametrize("hook", [None, "app.open", coroutine, generator, async_generator, Callable_()])
def test_what_would_do_nothing_when_called_is_refused(kind: str, hook: Any) -> None:
    with pytest.raises(TypeError, match=f"^{kind}: "):
        getattr(Lifecycle(), kind)(hook)


def test_a_coroutine_that_a_hook_returns_is_an_error_and_not_dropped() -> None:
    lifecycle = Lifecycle()
    lifecycle.child_started(lambda: coroutine())
    with pytest.raises(HookFailed, match="it returned a coroutine, which nobody would await"):
        lifecycle.run_child_started()


def test_a_process_in_which_two_receivers_consume_is_started_and_stopped_once(
    lifecycle: Lifecycle, calls: list[str]
) -> None:
    with lifecycle.consuming():
        with lifecycle.consuming():
            pass
        assert calls == ["child_started 1", "child_started 2"]
    assert calls[2:] == ["child_stopping 2", "child_stopping 1"]
    with lifecycle.consuming():
        assert len(calls) == 6


def test_a_second_receiver_consumes_only_when_the_process_has_started() -> None:
    lifecycle = Lifecycle()
    go_on = threading.Event()
    lifecycle.child_started(lambda: go_on.wait(30))
    inside: list[int] = []

    def consume(n: int) -> None:
        with lifecycle.consuming():
            inside.append(n)

    threads = [threading.Thread(target=consume, args=(n,), daemon=True) for n in (1, 2)]
    for thread in threads:
        thread.start()
    assert inside == []
    go_on.set()
    wait_until(lambda: sorted(inside) == [1, 2], what="both consuming")


def test_when_starting_fails_nothing_is_stopped_and_the_next_receiver_tries_again(calls: list[str]) -> None:
    lifecycle = Lifecycle()
    problems: list[Exception] = [ValueError("not yet")]

    @lifecycle.child_started
    def start() -> None:
        if problems:
            raise problems.pop()

    lifecycle.child_stopping(lambda: calls.append("stopping"))
    with pytest.raises(HookFailed, match="not yet"), lifecycle.consuming():
        calls.append("consuming")
    assert calls == []
    with lifecycle.consuming():
        calls.append("consuming")
    assert calls == ["consuming", "stopping"]


def test_the_process_is_stopping_also_after_an_error(lifecycle: Lifecycle, calls: list[str]) -> None:
    with pytest.raises(OSError, match="no broker"), lifecycle.consuming():
        raise OSError("no broker")
    assert calls[2:] == ["child_stopping 2", "child_stopping 1"]


def test_a_forked_process_is_another_one(calls: list[str]) -> None:
    lifecycle = Lifecycle()
    lifecycle.child_started(lambda: calls.append("started"))
    lifecycle.child_stopping(lambda: calls.append("stopping"))
    reader, writer = os.pipe()
    with lifecycle.consuming():
        child = os.fork()
        if not child:
            lifecycle.forget()  # as the one of the application does by itself
            with lifecycle.consuming():
                calls.append("consuming")
            os.write(writer, " ".join(calls).encode())
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 100) == b"started started consuming stopping"
        os.waitpid(child, 0)
        os.close(reader)


def test_what_a_handler_forked_does_not_stop_the_process_when_it_comes_back(calls: list[str]) -> None:
    lifecycle = Lifecycle()
    lifecycle.child_stopping(lambda: calls.append("stopping"))
    reader, writer = os.pipe()
    child = 0
    with lifecycle.consuming():
        child = os.fork()
    if not child:
        os.write(writer, repr(calls).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"[]"
    assert calls == ["stopping"]
    os.close(reader)
    os.close(writer)
