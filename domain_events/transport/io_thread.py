"""A daemon thread that runs one pika I/O loop, so that heartbeats go on whatever the other threads do."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Container

from pika.adapters.select_connection import EPollPoller, IOLoop


class IOThread:
    """Owns the loop. Everything but `call`, `start`, `stop` and `is_current` belongs into the thread itself.

    Or, where `shares_turns`, to whoever holds the `turn`.
    """

    def __init__(self, name: str, crashed: Callable[[BaseException], None]) -> None:
        self.loop = IOLoop()
        self.turn = threading.Lock()
        """Held by the thread whenever it does anything but wait, so by nobody for long."""
        self._poller = self.loop._poller  # type: ignore[attr-defined]
        self._poller.wake_threadsafe = _Bell(self._poller._w_interrupt.fileno())
        self.shares_turns = isinstance(self._poller, EPollPoller)
        """Whether it gives its turn away while it waits. Others of pika's pollers can't be touched meanwhile."""
        if self.shares_turns:
            self._poller._create_poller = lambda: _Poll(self.turn, self._poller._fd_handlers)
        self._crashed = crashed
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Raises RuntimeError when no thread can be had."""
        self._thread.start()

    def work_here(self) -> None:
        """The calling thread is the thread, until `loop.stop`. Raises what ends it otherwise: a signal handler may."""
        self._thread = threading.current_thread()
        self._run()
        if self._error is not None:
            raise self._error

    @property
    def has_started(self) -> bool:
        return self._thread.ident is not None

    @property
    def is_current(self) -> bool:
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread, soon. Thread-safe; dropped silently once the thread has ended."""
        self.loop.add_callback_threadsafe(function)

    def later(self, delay: float, function: Callable[[], None]) -> object:
        """Run `function` in the thread after `delay` seconds. Returns what `cancel` takes."""
        handle = self.loop.call_later(delay, function)
        if not self.is_current:
            self._poller.wake_threadsafe()  # it may be about to wait for longer
        return handle

    def cancel(self, handle: object) -> None:
        self.loop.remove_timeout(handle)  # type: ignore[arg-type]

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, if it has started. For other threads."""
        if self.has_started:
            self._thread.join(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and wait for it, unless called in it. For other threads."""
        self.call(self.loop.stop)
        if not self.is_current:
            self._thread.join(timeout)

    def _run(self) -> None:
        with self.turn:
            try:
                self.loop.start()
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait for this thread must hear it
                self._error = error
                self._crashed(error)
            finally:
                self._poller._running = (
                    False  # it stays true when the loop could not even start, for want of descriptors
                )
                self.loop.close()
                del self._poller.wake_threadsafe  # pika's own does nothing once the loop is closed


class _Poll:
    """Linux's epoll, which others may change while somebody waits for it: only then the turn is given away."""

    def __init__(self, turn: threading.Lock, handlers: Container[int]) -> None:
        """`handlers`: the descriptors that somebody looks at."""
        self._turn = turn
        self._handlers = handlers
        self._epoll = select.epoll()
        self.register = self._epoll.register
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister
        self.close = self._epoll.close

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self._turn.release()
        try:
            events = self._epoll.poll(timeout)
        finally:
            self._turn.acquire()
        # Until the turn came back somebody else may have taken a descriptor, and pika knows no handler for it any more.
        return [(descriptor, event) for descriptor, event in events if descriptor in self._handlers]


class _Bell:
    """Wakes up the loop, without a lock.

    pika takes one, so that nobody closes the descriptor meanwhile. But a signal handler or a finalizer that comes in
    that moment and waits for the I/O thread would hold a lock that this thread wants, too. This descriptor lives as
    long as anybody is about to ring.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)

    def __call__(self) -> None:
        try:  # noqa: SIM105 - it rings for nearly every event that is sent
            os.write(self._descriptor, b"X")
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # it rings already, or nobody hears it

    def __del__(self) -> None:
        os.close(self._descriptor)
