"""What an application wants done before the supervisor forks, and when a process begins and ends to consume."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from domain_events.errors import DomainEventError

logger = logging.getLogger(__name__)

Hook: TypeAlias = Callable[[], Any]
H = TypeVar("H", bound=Hook)


class HookFailed(DomainEventError):
    """A hook of the application raised. Its error is the cause."""


class Lifecycle:
    """The hooks of one application."""

    def __init__(self) -> None:
        self._before_fork: list[Hook] = []
        self._child_started: list[Hook] = []
        self._child_stopping: list[Hook] = []
        self._lock = threading.Lock()
        self._consuming = 0  # receivers, in this process

    def before_fork(self, hook: H) -> H:
        """Call `hook()` in the supervisor's master before each fork: close there what two processes must not share.

        A decorator; the function stays what it was. Hooks run in the order of their registration. When one raises, the
        fork counts as a failed start.
        """
        return _added(self._before_fork, "before_fork", hook)

    def child_started(self, hook: H) -> H:
        """Call `hook()` in each process that is about to consume: open a client there, warm a model.

        A decorator; the function stays what it was. Called in the thread that is about to consume, which in a child of
        the supervisor is the main thread, in the order of registration. When one raises, the child does not start, and
        `Receiver.start_consuming` raises HookFailed.
        """
        return _added(self._child_started, "child_started", hook)

    def child_stopping(self, hook: H) -> H:
        """Call `hook()` in each process that has consumed, when all is settled: close what `child_started` opened.

        A decorator; the function stays what it was. Called in the reverse order of registration. What one raises is
        logged, and the others are called. None is called where a `child_started` hook raised, nor in a process that
        was killed.
        """
        return _added(self._child_stopping, "child_stopping", hook)

    def run_before_fork(self) -> None:
        """Raises HookFailed."""
        for hook in self._before_fork:
            _run("before_fork", hook)

    def run_child_started(self) -> None:
        """Raises HookFailed; the hooks after it are not called then."""
        for hook in self._child_started:
            _run("child_started", hook)

    def run_child_stopping(self) -> None:
        """Logs what hooks raise."""
        for hook in reversed(self._child_stopping):
            try:
                _run("child_stopping", hook)
            except HookFailed as failed:
                logger.error("%s", failed, exc_info=failed.__cause__)

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Started and stopping, once where several receivers of a process consume at a time. Raises HookFailed."""
        process = os.getpid()
        with self._lock:
            if not self._consuming:
                self.run_child_started()
            self._consuming += 1
        try:
            yield
        finally:
            # Not in a process that a handler forked, and that comes back from it.
            if os.getpid() == process:
                with self._lock:
                    self._consuming -= 1
                    if not self._consuming:
                        self.run_child_stopping()

    def forget(self) -> None:
        """In a forked child: nothing consumes here, and the thread that held the lock is not here."""
        self._lock = threading.Lock()
        self._consuming = 0


def _added(hooks: list[Hook], kind: str, hook: H) -> H:
    if not callable(hook):
        raise TypeError(f"{kind}: a hook must be a function without arguments, not {type(hook).__name__}")
    if any(map(_is_lazy, (hook, type(hook).__call__))):
        raise TypeError(f"{kind}: {_shown(hook)} must do its work when called; a coroutine or a generator does not")
    hooks.append(hook)
    return hook


def _is_lazy(function: object) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )


def _run(kind: str, hook: Hook) -> None:
    try:
        result = hook()
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("it returned a coroutine, which nobody would await")
    except (Exception, SystemExit) as error:
        # The application's code.
        raise HookFailed(f"the {kind} hook {_shown(hook)} failed: {type(error).__name__}: {error}") from error


def _shown(hook: Hook) -> str:
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return f"{module}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


application = Lifecycle()
os.register_at_fork(after_in_child=application.forget)

before_fork = application.before_fork
child_started = application.child_started
child_stopping = application.child_stopping
run_before_fork = application.run_before_fork
run_child_started = application.run_child_started
run_child_stopping = application.run_child_stopping
