"""AMQP requests one after the other, written as a generator instead of a chain of callbacks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from domain_events.errors import SendError

Step: TypeAlias = Callable[[Callable[[Any], None]], Any]
"""Makes a request; calls what it is given with the broker's answer."""

T = TypeVar("T")
Steps: TypeAlias = Generator[Step, Any, T]


class NoAnswer(SendError):
    """The broker has been silent about a request for too long; it may still answer."""


class Clock(Protocol):
    """An `io_thread.IOThread`, of which only this is needed."""

    def later(self, delay: float, function: Callable[[], None]) -> object: ...

    def cancel(self, handle: object) -> None: ...


class Script(Generic[T]):
    """Runs `steps` in the I/O thread; ends in exactly one of `done`, `failed` or silence after `cancel()`.

    With a `clock`, each request fails with NoAnswer when it has not been answered for `patience` seconds.
    """

    def __init__(
        self,
        steps: Steps[T],
        *,
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        clock: Clock | None = None,
        patience: float = 0.0,
    ) -> None:
        self._steps = steps
        self._done = done
        self._failed = failed
        self._clock = clock
        self._patience = patience
        self._timer: object | None = None
        self._step = 0
        self.running = True

    def start(self) -> None:
        self._advance(lambda: next(self._steps))

    def throw(self, error: Exception) -> None:
        """The present request failed: the channel is gone. The generator may go on with another one."""
        if self.running:
            self._advance(lambda: self._steps.throw(error))

    def cancel(self) -> None:
        self.running = False
        self._stop_clock()
        self._steps.close()

    def _advance(self, resume: Callable[[], Step]) -> None:
        self._step += 1
        mine = self._step
        self._stop_clock()
        try:
            step = resume()
        except StopIteration as end:
            self.running = False
            self._done(end.value)
        except Exception as error:  # noqa: BLE001 - handed on to who started the script
            self.running = False
            self._failed(error)
        else:
            self._request(step, mine)

    def _request(self, step: Step, mine: int) -> None:
        if self._clock is not None:
            self._timer = self._clock.later(self._patience, partial(self._on_silence, mine))
        try:
            step(lambda answer: self._answered(mine, answer))
        except Exception as error:
            if not (self.running and self._step == mine):
                raise  # not of the request: of what its answer led to
            self.throw(error)

    def _answered(self, step: int, answer: Any) -> None:
        # An answer to a request that has failed meanwhile is nobody's.
        if self.running and step == self._step:
            self._advance(lambda: self._steps.send(answer))

    def _on_silence(self, step: int) -> None:
        self._timer = None
        if self.running and step == self._step:
            self.throw(NoAnswer(f"the broker has not answered for {self._patience:g} s"))

    def _stop_clock(self) -> None:
        if self._clock is not None and self._timer is not None:
            self._clock.cancel(self._timer)
            self._timer = None
