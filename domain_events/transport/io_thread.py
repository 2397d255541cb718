"""A daemon thread that runs one pika I/O loop, so that heartbeats go on whatever the other threads do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pika.adapters.select_connection import IOLoop


class IOThread:
    """Owns the loop. Everything but `call`, `start`, `stop` and `is_current` belongs into the thread itself."""

    def __init__(self, name: str, crashed: Callable[[BaseException], None]) -> None:
        self.loop = IOLoop()
        self._crashed = crashed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread, soon. Thread-safe; dropped silently once the thread has ended."""
        self.loop.add_callback_threadsafe(function)

    def later(self, delay: float, function: Callable[[], None]) -> object:
        """Run `function` after `delay` seconds. Returns what `cancel` takes."""
        return self.loop.call_later(delay, function)

    def cancel(self, handle: object) -> None:
        self.loop.remove_timeout(handle)  # type: ignore[arg-type]

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and wait for it, unless called in it. For other threads."""
        self.call(self.loop.stop)
        if not self.is_current:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.loop.start()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait for this thread must hear it
            self._crashed(error)
        finally:
            self.loop.close()
